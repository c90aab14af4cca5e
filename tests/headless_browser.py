"""A headless Chromium for tests, spoken to in its DevTools protocol over two pipes; needs no package."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

TIMEOUT = 300.0  # seconds until a page that does not get there fails the test


def find_chromium():
    """Path of a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def require_chromium():
    """Path of a Chromium; skips the test where there is none."""
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium on the path (set CHROMIUM to name one): the page is not opened")
    return found


class Page:
    """One tab; a context manager."""

    def __init__(self, width=1280, height=900):
        self._size, self._count, self._left = (width, height), 0, b""
        self.errors = []

    def __enter__(self):
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-profile-", ignore_cleanup_errors=True)
        command_read, self._commands = os.pipe()
        self._answers, answer_write = os.pipe()

        def give_pipes():  # in the child: Chromium reads commands from descriptor 3 and answers on 4
            source, sink = os.dup(command_read), os.dup(answer_write)
            os.dup2(source, 3)
            os.dup2(sink, 4)

        self._process = subprocess.Popen(
            [
                require_chromium(), "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
                "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync",
                "--disable-component-update", "--mute-audio", "--hide-scrollbars",
                "--autoplay-policy=no-user-gesture-required",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={self._profile.name}", "about:blank",
            ],
            preexec_fn=give_pipes,  # noqa: PLW1509 - two calls of dup2 wait for no lock
            close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(command_read)
        os.close(answer_write)
        self._session = None
        targets = self._wait_for(lambda: self.call("Target.getTargets")["targetInfos"])
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")
        self.resize(*self._size)
        return self

    def __exit__(self, *error):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        self._profile.cleanup()

    def call(self, method, **parameters):
        """One command of the protocol; returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _read(self):
        while b"\0" not in self._left:
            data = os.read(self._answers, 1 << 20)
            assert data, "Chromium has ended"
            self._left += data
        line, _, self._left = self._left.partition(b"\0")
        return json.loads(line)

    def _note(self, event):
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    @staticmethod
    def _wait_for(condition):
        deadline = time.monotonic() + TIMEOUT
        while not (value := condition()):
            assert time.monotonic() < deadline, "the page did not get there in time"
            time.sleep(0.05)
        return value

    def open(self, path):
        """Open a file from disk."""
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def visit(self, address):
        """Open a page of a server on this machine."""
        self.call("Page.navigate", url=address)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(address)})")

    def choose_file(self, selector, path):
        """Give a file to an <input type=file>, as by its dialogue."""
        self.wait(f"!!document.querySelector({json.dumps(selector)})")
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def evaluate(self, script):
        """The value of an expression in the page; a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]["exception"].get("description", result)
        return result["result"].get("value")

    def wait(self, script):
        """Wait until an expression is true; returns its value."""
        return self._wait_for(lambda: self.evaluate(script))

    def key(self, key):
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def drop_file(self, x, y, path):
        """Drop a file at a point of the window, as from a file manager."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def resize(self, width, height, mobile=False):
        """Set the window's size in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def screenshot(self, path, whole=True):
        """Save a picture of the page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(data))
