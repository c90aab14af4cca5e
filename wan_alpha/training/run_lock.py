"""One run at a time in an output folder, by a lock of the operating system: it goes when its process does, however."""

import contextlib
import json
import os
import socket
import time
import uuid
from pathlib import Path

from wan_alpha.errors import ConfigError

LOCK_FILE = ".lock"
_held = set()  # the system's lock is one of processes: within one process, this


@contextlib.contextmanager
def run_lock(output_dir):
    """Hold an output folder; it is made if it is not there.

    Where the file system knows no locks, as some network mounts, nothing is held.

    Yields:
        a token of this holding, for :func:`sees_holder`.

    Raises:
        ConfigError: another run holds it; with its process and host.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / LOCK_FILE).resolve()
    if path in _held:
        # Not read: closing the file once would give up the lock that another part of this process holds.
        raise ConfigError(_refusal(folder, "this process"))
    # Never truncated on opening: what another process wrote there is what a refusal quotes.
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _try_lock(handle):
            raise ConfigError(_refusal(folder, _owner(path)))
        _held.add(path)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        owner["token"] = uuid.uuid4().hex
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(owner).encode())
        yield owner["token"]
    finally:
        _held.discard(path)
        os.close(handle)


def sees_holder(output_dir, token):
    """Whether the folder is, from here, the one that another process holds as ``token``: not one of the same name.

    Not for the holding process, which would give its lock up by closing the file.
    """
    try:
        owner = json.loads((Path(output_dir) / LOCK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(owner, dict) and owner.get("token") == token


def _try_lock(handle):
    """Whether the lock is ours. Locks of this kind belong to a process, and its children do not inherit them: loading
    processes that outlive a killed run for some seconds hold nothing."""
    try:
        import fcntl
    except ImportError:
        return _try_lock_on_windows(handle)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # no locks here
    return True


def _try_lock_on_windows(handle):
    import msvcrt

    try:
        os.lseek(handle, 1 << 20, os.SEEK_SET)  # beside the text, which others shall be able to read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    except OSError:
        return False
    return True


def _owner(path):
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _refusal(folder, who):
    return (
        f"{folder}: a run is going on there ({who}); wait for its end, stop it (kill -TERM lets it save first), or "
        "choose another output_dir"
    )
