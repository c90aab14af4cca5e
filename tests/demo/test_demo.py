"""The demo's road with a handful of steps: everything runs, and bars that are missed are said."""

import json

import numpy as np
import pytest
from headless_browser import Page
from PIL import Image

from wan_alpha.cli.main import main
from wan_alpha.demo.figures import clip_figures, stage1_figures, stage2_figures
from wan_alpha.inference.generate import GeneratedClip
from wan_alpha.metrics.coverage import Coverage


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    sizes = ["--num_clips", "2", "--num_held_out", "1", "--vae_steps", "2", "--dit_steps", "2"]
    return out, main(["demo", "--out", str(out), "--device", "cpu", *sizes])


def test_everything_is_written_and_missed_bars_fail(run):
    out, code = run
    assert code == 1, "two steps cannot meet the bars"
    summary = json.loads((out / "demo.json").read_text())
    missed = [figure["name"] for figure in summary["figures"] if not figure["passed"]]
    assert "stage 1: alpha PSNR" in missed
    assert [clip["clear"] <= 1 and clip["edge_width"] != 0 for clip in summary["clips"]] == [True] * 3
    assert (out / "stage1" / "rgba_vae.safetensors").is_file() and (out / "stage2" / "adapter.safetensors").is_file()
    assert len(list((out / "generated").glob("*/frames/*.png"))) == 3 * 9
    assert len(list((out / "generated").glob("*/video.webm"))) == 3


def test_page_stands_alone(run):
    files = run[0] / "report_files"
    text = (files / "data.js").read_text()
    data = json.loads(text.removeprefix("wanReport.data = ").rstrip().removesuffix(";"))
    shown = [[(clip["label"], clip["num_frames"]) for clip in group["clips"]] for group in data["groups"]]
    stills = [[("reference", 1), (f"validation/lemur_rgba_{frame:05d}", 1)] for frame in (0, 4, 8)]
    assert shown == [*([(f"seed {seed}", 9)] for seed in range(3)), *stills]
    assert len(list((files / "clips").glob("c[0-2]/0000[0-8].js"))) == 3 * 9
    assert [table["title"] for table in data["tables"]] == ["Figures of the demo", "Reconstruction", "Clips"]
    assert len(data["tables"][0]["rows"]) == 7
    assert {"stage1: loss", "stage2: loss", "stage2: validation loss"} <= {chart["title"] for chart in data["charts"]}


def test_page_shows_each_background_through_the_clips(run, tmp_path):
    """What lies under a generated clip is what its alpha lets through, whatever the demo's few steps have learned."""
    out, _ = run
    frames = [np.asarray(Image.open(path)) for path in sorted((out / "generated").glob("000_*/frames/*.png"))]
    with Page() as page:
        page.open(out / "index.html")
        for background, level in (("black", 0), ("white", 255)):
            page.evaluate(f"document.querySelector('[data-background={background}]').click()")
            page.wait(f"document.querySelector('canvas[data-clip=c0]').dataset.shows === 'picture {background}'")
            over = composite(frames[0], level)
            shown = read_canvas(page)
            assert np.abs(shown - over).max() <= 3
        page.key("ArrowRight")
        page.wait("document.querySelector('canvas[data-clip=c0]').dataset.frame === '1'")
        assert np.abs(read_canvas(page) - composite(frames[1], 255)).max() <= 3
        for width in (1280, 390):
            page.resize(width, 900, mobile=width < 600)
            assert page.wait("document.documentElement.scrollWidth") <= width
        assert page.errors == []


def composite(frame, level):
    alpha = frame[..., 3:] / 255
    return frame[..., :3] * alpha + level * (1 - alpha)


def read_canvas(page):
    """The clip's pixels as shown, (64, 64, 3): each is several pixels of the canvas, its middle is read."""
    values = page.evaluate(
        "(() => { const c = document.querySelector('canvas[data-clip=c0]'), d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data, out = [];"
        " for (let y = 0; y < 64; y++) for (let x = 0; x < 64; x++) {"
        " const at = 4 * (Math.floor((y + .5) / 64 * c.height) * c.width + Math.floor((x + .5) / 64 * c.width));"
        " out.push(d[at], d[at + 1], d[at + 2]); } return out; })()"
    )
    return np.array(values, float).reshape(64, 64, 3)


@pytest.mark.parametrize(
    ("after", "passed"),
    [
        ({"alpha_psnr": 21.5, "rgb_psnr": 26.5, "alpha_mae": 5}, [True, True, True]),
        ({"alpha_psnr": 20.9, "rgb_psnr": 26.5, "alpha_mae": 5}, [False, True, True]),
        ({"alpha_psnr": 21.5, "rgb_psnr": 25.9, "alpha_mae": 200}, [True, False, False]),
    ],
)
def test_stage1_bars(after, passed):
    before = {"alpha_psnr": 6.0, "rgb_psnr": 25.0, "alpha_mae": 100}
    assert [figure.passed for figure in stage1_figures(before, after)] == passed
    high = before | {"alpha_psnr": 12.0}
    assert not stage1_figures(high, {"alpha_psnr": 23.0, "rgb_psnr": 27, "alpha_mae": 5})[0].passed, (
        "+11 dB is too little"
    )


def test_stage2_and_clip_bars():
    assert stage2_figures({"loss": 1.0}, {"loss": 0.9})[0].passed
    assert not stage2_figures({"loss": 1.0}, {"loss": 1.0})[0].passed

    def clip(clear):
        return GeneratedClip("a star", 0, None, Coverage(clear, 0.1, 0.9 - clear), ())

    clips = [clip(0.0), clip(0.6), clip(0.6), clip(1.0)]
    found = clip_figures(clips, [{"collapse": name} for name in (None, None, "background kept", None)])
    assert [figure.passed for figure in found] == [False, True, False, False]
    assert found[2].after.endswith(", background kept")
