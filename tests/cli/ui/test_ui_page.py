"""The page in a browser: the command started as a user does, every tab used with the mouse and the keyboard."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
from headless_browser import Page, require_chromium
from miniature_wan import write_wan_folder

from wan_alpha.media.probe import probe
from wan_alpha.media.write import LosslessWriter, PngSequenceWriter

FPS = 8.0


def soft_square(num_frames=4, height=48, width=64):
    """A red square with a soft left side that moves, (T, H, W, 4) uint8."""
    clip = np.zeros((num_frames, height, width, 4), np.uint8)
    for number, frame in enumerate(clip):
        frame[8:40, 8 + 2 * number : 40 + 2 * number] = (220, 40, 30, 255)
        frame[8:40, 8 + 2 * number : 16 + 2 * number, 3] = np.arange(16, 248, 29, np.uint8)
    return clip


@pytest.fixture(scope="module")
def material(tmp_path_factory, reference_dir):
    """A clip, a dataset of two rows of which one is opaque, a miniature Wan."""
    root = tmp_path_factory.mktemp("ui")
    with LosslessWriter(root / "square.mkv", FPS) as writer:
        writer.write(soft_square())
    opaque = soft_square()
    opaque[..., 3] = 255
    for name, clip in (("good", soft_square()), ("opaque", opaque)):
        (root / "dataset").mkdir(exist_ok=True)
        with LosslessWriter(root / "dataset" / f"{name}.mkv", FPS) as writer:
            writer.write(clip)
    (root / "wan").mkdir()
    wan = write_wan_folder(root / "wan", reference_dir / "base_vae.safetensors")
    return SimpleNamespace(root=root, out=root / "results", wan=wan)


@pytest.fixture(scope="module")
def address(material):
    pytest.importorskip("gradio", reason="the page needs the extra ui")
    require_chromium()
    command = [sys.executable, "-m", "wan_alpha.cli.main", "ui", "--port", "0", "--out", str(material.out)]
    with open(material.root / "server.txt", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )
        try:
            line = server.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), (material.root / "server.txt").read_text()
            yield line.split()[0]
        finally:
            server.terminate()
            server.communicate(timeout=600)
    assert "Traceback" not in (material.root / "server.txt").read_text()


@pytest.fixture(scope="module")
def page(address):
    with Page() as page:
        page.visit(address)
        page.wait("[...document.querySelectorAll('button[role=tab]')].length >= 5")
        yield page
        assert page.errors == [], "nothing was asked of the network, nothing failed"


def open_tab(page, name):
    tab = f"[...document.querySelectorAll('button[role=tab]')].find(tab => tab.textContent.trim() === {name!r})"
    page.wait(f"!!{tab}")
    page.evaluate(f"{tab}.click()")
    page.wait(f"{tab}.getAttribute('aria-selected') === 'true'")


def fill(page, key, text):
    """Type into the field of a component."""
    field = f"document.querySelector('#{key} textarea, #{key} input')"
    page.wait(f"!!{field}")
    page.evaluate(f"{field}.focus(), {field}.select()")
    page.call("Input.insertText", text=str(text))
    page.evaluate(f"{field}.blur()")


def unfold(page, key):
    """Open an accordion."""
    page.wait(f"!!document.querySelector('#{key} button')")
    page.evaluate(f"document.querySelector('#{key} button').click()")


def press(page, key):
    page.wait(f"!!document.getElementById('{key}')")
    page.evaluate(f"document.getElementById('{key}').click()")


def shown(page, key):
    """Wait until a component shows a frame; returns the frame's address."""
    page.wait(f"!!document.querySelector('#{key} iframe')?.contentDocument?.querySelector('body *')")
    return page.evaluate(f"document.querySelector('#{key} iframe').src")


def test_probe_of_an_upload(page, material):
    open_tab(page, "Probe")
    page.choose_file("#probe-upload input[type=file]", material.root / "square.mkv")
    page.wait("document.querySelector('#probe-upload').textContent.includes('square')")
    press(page, "probe-run")
    page.wait("document.querySelector('#probe-table')?.textContent.includes('alpha survives')")
    text = page.evaluate("document.querySelector('#probe-table').textContent")
    assert "64x48" in text and "ffv1" in text
    assert "255 ####" in page.evaluate("document.querySelector('#probe-levels').textContent")


def test_convert_of_a_typed_path_shows_transparent_video(page, material):
    open_tab(page, "Convert")
    fill(page, "convert-path", material.root / "square.mkv")
    press(page, "convert-run")
    page.wait("document.querySelectorAll('#convert-result video').length === 3")
    written = material.out / "convert_001" / "square.webm"
    assert probe(written).has_alpha and probe(written).num_frames == 4
    page.wait("[...document.querySelectorAll('#convert-result video')].every(video => video.videoWidth === 64)")
    address = page.evaluate("document.querySelector('#convert-result a[download]').href")
    with urllib.request.urlopen(address) as answer:
        assert answer.read() == written.read_bytes()


def test_an_error_is_one_sentence(page):
    open_tab(page, "Convert")
    fill(page, "convert-path", "/nowhere/<b>clip</b>.mov")
    press(page, "convert-run")
    toast = "document.querySelector('[data-testid=toast-body], .toast-body')"
    page.wait(f"{toast}?.textContent.includes('/nowhere/<b>clip</b>.mov')")
    assert "Traceback" not in page.evaluate(f"{toast}.textContent")
    page.evaluate("document.querySelector('.toast-close, [data-testid=toast-close]').click()")


def test_a_dataset_is_looked_at(page, material):
    open_tab(page, "Dataset")
    fill(page, "dataset-path", material.root / "dataset")
    fill(page, "dataset-workers", 1)
    press(page, "dataset-run")
    shown(page, "dataset-sheet")
    assert "2 rows: 0 clean; 1 error" in page.evaluate("document.querySelector('#dataset-summary').textContent")
    assert "opaque.mkv" in page.evaluate("document.querySelector('#dataset-table').textContent")
    sheet = "document.querySelector('#dataset-sheet iframe').contentDocument"
    page.wait(f"[...{sheet}.querySelectorAll('img.magenta')].every(image => image.naturalWidth > 0)")
    assert page.evaluate(f"{sheet}.querySelectorAll('article').length") == 2
    assert json.loads((material.out / "dataset_001" / "doctor.json").read_text())["rows"] == 2


def test_generate_shows_its_clip_on_a_report(page, material, reference_dir):
    open_tab(page, "Generate")
    fill(page, "generate-prompt", "a red ball on transparent background")
    fill(page, "generate-config", "tiny_generate")
    page.key("Enter")
    fill(page, "generate-steps", 2)
    unfold(page, "generate-weights")
    fill(page, "generate-wan", material.wan)
    fill(page, "generate-base-vae", material.wan / "Wan2.1_VAE.pth")
    fill(page, "generate-rgba-weights", reference_dir / "rgba_vae_checkpoint.bin")
    fill(page, "generate-adapter", "none")
    fill(page, "generate-options", "width = 48\nheight = 32\n--device cpu\nguidance=1")
    page.evaluate(
        "window.bars = []; new MutationObserver(() => { const bar = document.querySelector('#generate-result'); "
        "bars.push(bar.textContent); }).observe(document.body, {subtree: true, childList: true, characterData: true})"
    )
    press(page, "generate-run")
    shown(page, "generate-result")
    report = "document.querySelector('#generate-result iframe').contentDocument"
    page.wait(f"{report}?.querySelectorAll('canvas[data-clip]').length === 1")
    settings = json.loads(next((material.out / "generate_001").glob("000_*/settings.json")).read_text())
    assert (settings["recipe"]["num_steps"], settings["num_frames"]) == (2, 9)
    assert any("sampling" in text or "decoding" in text for text in page.evaluate("bars")), "the bar was shown"


def test_a_report_is_made_and_opened_again(page, material):
    with PngSequenceWriter(material.root / "run" / "clip") as writer:
        writer.write(soft_square())
    open_tab(page, "Reports")
    fill(page, "report-runs", material.root / "run")
    press(page, "report-run")
    first = shown(page, "report-result")
    report = "document.querySelector('#report-result iframe').contentDocument"
    page.wait(f"{report}?.querySelectorAll('canvas[data-clip]').length === 1")
    assert (material.out / "report_001" / "index.html").is_file()
    shutil.copytree(material.out / "report_001", material.root / "kept")
    fill(page, "report-path", material.root / "kept")
    press(page, "report-open")
    page.wait(f"document.querySelector('#report-result iframe').src !== {first!r}")
    shown(page, "report-result")
    page.wait(f"{report}?.querySelectorAll('canvas[data-clip]').length === 1")
    page.evaluate("document.querySelector('#report-result iframe').scrollIntoView()")  # it draws what is in sight
    canvas = f"{report}.querySelector('canvas[data-clip]')"
    page.wait(f"{canvas}.dataset.shows && {canvas}.width > 0")
    middle = f"{canvas}.getContext('2d').getImageData({canvas}.width * 0.4, {canvas}.height / 2, 1, 1).data"
    page.wait(f"({middle})[0] > 200 && ({middle})[1] < 60")


@pytest.mark.parametrize("tab", ["Probe", "Convert", "Dataset", "Generate", "Reports"])
def test_nothing_hangs_over_a_phones_window(page, tab):
    open_tab(page, tab)
    page.resize(390, 844, mobile=True)
    page.wait("innerWidth === 390")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.resize(1280, 900)


def answer_code(address, **headers):
    try:
        return urllib.request.urlopen(urllib.request.Request(address, headers=headers)).status
    except urllib.error.HTTPError as error:
        return error.code


def test_only_this_machines_own_page_is_answered(address, material):
    port = address.rstrip("/").rpartition(":")[2]
    assert answer_code(address) == 200
    assert answer_code(address, Host="elsewhere.example") == 403
    assert answer_code(address, Origin="https://elsewhere.example") == 403
    assert answer_code(address, Origin=f"http://localhost:{port}") == 200
    outside = material.root / "square.mkv"
    for path in (f"gradio_api/file={outside}", "shown/", f"shown/x/{outside}", "docs"):
        assert answer_code(address + path) in (403, 404), path


def test_evaluate_shows_figures_and_the_clips(page, material):
    open_tab(page, "Evaluate")
    fill(page, "evaluate-path", material.root / "dataset" / "good.mkv")
    fill(page, "evaluate-truth", material.root / "square.mkv")
    press(page, "evaluate-run")
    shown(page, "evaluate-result")
    text = page.evaluate("document.querySelector('#evaluate-table').textContent")
    assert "good" in text and "PSNR" in text
    written = json.loads((material.out / "evaluate_001" / "evaluation.json").read_text())
    assert written["alpha"]["psnr"] == "inf" and (material.out / "evaluate_001" / "report" / "index.html").is_file()


def test_prepare_makes_a_dataset_of_what_is_good(page, material):
    open_tab(page, "Prepare")
    fill(page, "prepare-path", material.root / "dataset")
    fill(page, "prepare-workers", 1)
    fill(page, "prepare-side", 32)
    page.evaluate("document.querySelector('#prepare-skip input').click()")
    press(page, "prepare-run")
    page.wait("document.querySelector('#prepare-summary')?.textContent.includes('1 clips')")
    assert "opaque" in page.evaluate("document.querySelector('#prepare-table').textContent")
    (made,) = material.out.glob("dataset_*/metadata.csv")
    assert "good" in made.read_text() and "opaque" not in made.read_text()


def test_the_dataset_is_repaired_into_a_copy(page, material):
    open_tab(page, "Dataset")
    fill(page, "dataset-path", material.root / "dataset")
    fill(page, "dataset-workers", 1)
    fill(page, "dataset-side", 32)
    page.evaluate("document.querySelector('#dataset-fix input').click()")
    press(page, "dataset-run")
    page.wait("document.querySelector('#dataset-summary')?.textContent.includes('repaired: ')")
    (made,) = material.out.glob("dataset_*/repaired/metadata.csv")
    assert "good" in made.read_text() and "opaque" not in made.read_text()
