"""wan-alpha evaluate: clips, references and their figures, in files and on the command line."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch

from wan_alpha.cli.main import main
from wan_alpha.data.manifest import write_manifest
from wan_alpha.data.synthetic import ShapeClip, draw_shape_clip
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.evaluation import evaluate as evaluate_module
from wan_alpha.evaluation.clip_pairs import find_clips
from wan_alpha.evaluation.evaluate import evaluate
from wan_alpha.evaluation.figure_names import BETTER, mean_figure
from wan_alpha.inference.generate import clip_folder
from wan_alpha.media.gif import GifWriter
from wan_alpha.media.webp import WebpWriter
from wan_alpha.media.write import LosslessWriter, OpaqueWriter, PngSequenceWriter, WebmAlphaWriter
from wan_alpha.metrics.matting import matting_metrics
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import EvaluateRecipe

FRAMES, SIZE = 4, 32


def drawn(seed=0, num_frames=FRAMES, size=SIZE):
    """(T, H, W, 4) uint8."""
    clip = ShapeClip("star", "orange", "large", "translucent", "moving up")
    rgb, alpha = draw_shape_clip(clip, num_frames, size, size, torch.Generator().manual_seed(seed))
    return (torch.cat([(rgb + 1) / 2, alpha]).permute(1, 2, 3, 0) * 255).round().byte().numpy()


def damaged(frames, amount):
    """The same with an alpha that is lower by `amount` levels."""
    pred = frames.copy()
    pred[..., 3] = (frames[..., 3].astype(int) - amount).clip(0, 255)
    return pred


def write(path, frames, writer=LosslessWriter, fps=16, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with writer(path, fps, **options) as file:
        file.write(frames)
    return path


def write_frames(folder, frames):
    with PngSequenceWriter(folder) as file:
        file.write(frames)
    return folder


@pytest.fixture
def pair(tmp_path):
    return write(tmp_path / "pred.mkv", damaged(drawn(), 40)), write(tmp_path / "ref.mkv", drawn())


def run(tmp_path, pred, reference=None, **options):
    given = {"output_dir": tmp_path / "out", "pred": pred, "device": "cpu", **options}
    return evaluate(
        load_recipe(EvaluateRecipe, overrides=given if reference is None else given | {"reference": reference})
    )


def read_csv(tmp_path):
    with open(tmp_path / "out" / "evaluation.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_pair_of_files(tmp_path, pair, capsys):
    report = run(tmp_path, *pair)
    assert report.passed
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    pred, true = (
        torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255 for frames in (damaged(drawn(), 40), drawn())
    )
    expected = matting_metrics(pred[:, 3:], true[:, 3:], pred[:, :3], true[:, :3])
    assert written["mean"] == pytest.approx({name: value.mean().item() for name, value in expected.items()}, rel=1e-5)
    assert set(written["composite"]) >= {"black", "white", "magenta", "grey"} and len(written["composite"]) == 9
    assert set(written["alpha"]) == set(written["composite"]["grey"]) == {"psnr", "ssim"}
    assert set(written["regions"]) == {"edge", "semi_transparent", "opaque"}
    assert written["regions"]["opaque"]["mean"].keys() == written["mean"].keys()
    (clip,) = written["clips"]
    assert (clip["name"], clip["pred"], clip["ref"], clip["num_frames"]) == ("pred", str(pair[0]), str(pair[1]), FRAMES)
    assert clip["mean"] == written["mean"] and clip["transparency"]["collapse"] is None
    rows = read_csv(tmp_path)
    assert [row["frame"] for row in rows] == ["", "0", "1", "2", "3"]
    assert float(rows[0]["alpha_mad"]) == pytest.approx(written["mean"]["alpha_mad"], rel=1e-4)
    per_frame = [float(row["alpha_mad"]) for row in rows[1:]]
    assert per_frame == pytest.approx(expected["alpha_mad"][0].tolist(), rel=1e-4)
    assert float(rows[1]["edge_alpha_ssim"]) < 1 and rows[1]["flicker"] == "" and float(rows[2]["flicker"]) >= 0
    printed = capsys.readouterr().out
    assert f"{written['alpha']['psnr']:.2f}" in printed and "evaluation.csv" in printed


def test_the_reference_file_of_the_field(tmp_path, reference_dir):
    """Keys as in metrics.json, so that whatever reads that reads this."""
    expected = json.loads((reference_dir / "metrics.json").read_text())
    write(tmp_path / "a.mkv", drawn())
    run(tmp_path, tmp_path / "a.mkv", tmp_path / "a.mkv")
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    for key in ("mean", "composite", "alpha"):
        assert set(expected[key]) <= set(written[key])
    assert written["alpha"] == {"psnr": "inf", "ssim": 1.0}


def test_a_perfect_clip_is_infinite_in_every_file_and_meets_every_bar(tmp_path):
    """JSON has no infinity: a word that float() reads, in JSON as in CSV; what was not measured is null and empty."""
    hard = drawn()
    hard[..., 3] = np.where(hard[..., 3] > 127, 255, 0)
    file = write(tmp_path / "a.mkv", hard)
    bars = ["alpha_psnr=60", "composite_psnr=inf", "opaque_alpha_psnr=1e9"]
    report = run(tmp_path, file, file, fail_under=bars)
    assert report.passed and report.overall["alpha_psnr"] == math.inf
    text = (tmp_path / "out" / "evaluation.json").read_text()

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    written = json.loads(text, parse_constant=refuse)
    clip, (row, *frames) = written["clips"][0], read_csv(tmp_path)
    assert written["alpha"]["psnr"] == clip["composite"]["grey"]["psnr"] == row["alpha_psnr"] == "inf"
    assert float(written["alpha"]["psnr"]) == float(row["composite_grey_psnr"]) == math.inf
    assert {frame["alpha_psnr"] for frame in frames} == {"inf"}
    assert clip["regions"]["semi_transparent"]["alpha"]["psnr"] is None
    assert row["semi_transparent_alpha_psnr"] == ""


def test_lists_of_every_kind_say_how_their_rows_are_read(tmp_path):
    """A matte beside the colour in one video: read as a pair only where the list says so."""
    frames = drawn()
    packed = np.concatenate([frames[..., :3], np.repeat(frames[..., 3:], 3, axis=-1)], axis=2)
    for suffix, text in (
        ("csv", "video,packing\na.mkv,alpha_right\n"), ("jsonl", '{"video": "a.mkv", "packing": "alpha_right"}\n'),
    ):  # fmt: skip
        write(tmp_path / suffix / "a.mkv", packed, stream="rgb")
        (tmp_path / suffix / f"metadata.{suffix}").write_text(text)
        (clip,) = find_clips(tmp_path / suffix)
        assert (clip.name, clip.row.packing) == ("a", "alpha_right")


def test_references_without_a_clip_are_named(tmp_path, pair, capsys):
    for folder, names in (("preds", "a"), ("truth", "abc")):
        for name in names:
            write(tmp_path / folder / f"{name}.mkv", drawn())
    run(tmp_path, tmp_path / "preds", tmp_path / "truth")
    assert "not compared, 2 references without a clip: b, c" in capsys.readouterr().out


def test_without_a_reference(tmp_path, pair, capsys):
    report = run(tmp_path, pair[0])
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert set(written) == {"transparency", "clips"} and "ref" not in written["clips"][0]
    found = written["transparency"]
    assert found["clear"] + found["semi_transparent"] + found["opaque"] == pytest.approx(1)
    assert found["collapse"] == {} and report.overall["clear"] == found["clear"]
    assert "border" in capsys.readouterr().out
    assert read_csv(tmp_path)[0].keys() == {"clip", "frame", *(report.clips[0].flat), "fringe_background", "collapse"}


def test_collapse_is_named_and_comes_first(tmp_path):
    opaque = drawn()
    opaque[..., 3] = 255
    write(tmp_path / "clips" / "a.mkv", drawn())
    write(tmp_path / "clips" / "b.mkv", opaque)
    report = run(tmp_path, tmp_path / "clips")
    assert [(clip.pair.name, clip.transparency["collapse"]) for clip in report.clips] == [
        ("b", "all opaque"),
        ("a", None),
    ]
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["transparency"]["collapse"] == {"all opaque": 1}
    assert read_csv(tmp_path)[0]["collapse"] == "all opaque"


def test_folders_are_paired_by_name_worst_first(tmp_path):
    for index, amount in enumerate((10, 80, 40)):
        true = drawn(seed=index)
        write_frames(tmp_path / "preds" / f"clip_{index}_x", damaged(true, amount))
        write(tmp_path / "refs" / f"clip_{index}_x.mkv", true)
    report = run(tmp_path, tmp_path / "preds", tmp_path / "refs")
    assert [clip.pair.name for clip in report.clips] == ["clip_1_x", "clip_2_x", "clip_0_x"]
    values = [clip.flat["alpha_mad"] for clip in report.clips]
    assert values == sorted(values, reverse=True)
    assert report.overall["alpha_mad"] == pytest.approx(np.mean(values))
    by_another = run(tmp_path, tmp_path / "preds", tmp_path / "refs", worst_by="edge_alpha_psnr").clips
    assert [clip.pair.name for clip in by_another] == ["clip_1_x", "clip_2_x", "clip_0_x"]
    assert [row["clip"] for row in read_csv(tmp_path)[:: FRAMES + 1]] == ["clip_1_x", "clip_2_x", "clip_0_x"]


def test_datasets_are_paired_row_by_name(tmp_path):
    true = drawn()
    for name, amount in (("one", 0), ("two", 30)):
        for folder, frames in (("refs", true), ("preds", damaged(true, amount))):
            write(tmp_path / folder / "videos" / f"{name}_rgb.mkv", frames, stream="rgb")
            write(tmp_path / folder / "videos" / f"{name}_alpha.mkv", frames, stream="matte")
    for folder in ("refs", "preds"):
        files = [
            {"video_fgr": f"videos/{name}_rgb.mkv", "video_pha": f"videos/{name}_alpha.mkv"} for name in ("one", "two")
        ]
        write_manifest(tmp_path / folder / "metadata.csv", files)
    report = run(tmp_path, tmp_path / "preds" / "metadata.csv", tmp_path / "refs" / "metadata.csv")
    assert [(clip.pair.name, clip.flat["alpha_mad"] > 0) for clip in report.clips] == [
        ("videos/two", True), ("videos/one", False),
    ]  # fmt: skip
    assert [clip.name for clip in find_clips(tmp_path / "refs")] == ["videos/one", "videos/two"]


def test_what_generate_wrote_is_its_frames(tmp_path):
    for name in ("000_star", "001_moon"):
        write_frames(tmp_path / "generated" / name / "frames", drawn())
        write(tmp_path / "generated" / name / "preview.mp4", drawn(), OpaqueWriter)
    assert [clip.name for clip in find_clips(tmp_path / "generated")] == ["000_star", "001_moon"]
    (one,) = find_clips(tmp_path / "generated" / "000_star")
    assert (one.name, one.row.foreground.name) == ("000_star", "frames")


def generated(folder, *clips):
    """What `generate` leaves of (prompt, seed, frames) clips, under its own names, as far as they are looked at."""
    for index, (prompt, seed, frames) in enumerate(clips):
        clip = clip_folder(folder, index, prompt)
        write_frames(clip / "frames", frames)
        (clip / "settings.json").write_text(json.dumps({"prompt": prompt, "seed": seed}))
    return folder


RED, BLUE = (f"The background is transparent. Photograph, medium shot. A {color} balloon." for color in ("red", "blue"))


def test_generated_clips_are_paired_by_prompt_and_seed(tmp_path):
    """The two runs have their prompts in different orders; names that were cut alike would pair red with blue."""
    red, blue = drawn(seed=1), drawn(seed=2)
    preds = generated(tmp_path / "preds", (RED, 0, red), (BLUE, 1, blue), (RED, 2, damaged(red, 20)))
    truth = generated(tmp_path / "truth", (BLUE, 1, blue), (RED, 2, red), (RED, 0, red))
    report = run(tmp_path, preds, truth)
    found = {clip.pair.name: clip.pair.reference.foreground.parent.name[:3] for clip in report.clips}
    assert found == {
        clip_folder("", i, p).name: to for i, p, to in ((0, RED, "002"), (1, BLUE, "000"), (2, RED, "001"))
    }
    assert sorted(clip.flat["alpha_mad"] > 0 for clip in report.clips) == [False, False, True]
    other_seeds = generated(tmp_path / "seeds", (RED, 7, red), (BLUE, 8, blue))
    assert {clip.flat["alpha_mad"] for clip in run(tmp_path, other_seeds, generated(
        tmp_path / "again", (BLUE, 1, blue), (RED, 2, red)
    )).clips} == {0.0}  # fmt: skip


def test_generated_clips_of_other_prompts_are_no_reference(tmp_path):
    frames = drawn()
    red = generated(tmp_path / "red", (RED, 0, frames))
    blue = generated(tmp_path / "blue", (BLUE, 0, frames))
    with pytest.raises(DataError, match=r"made from different prompts: '.*red balloon.*' and '.*blue balloon"):
        run(tmp_path, red, blue)
    assert run(tmp_path, *(next(folder.glob("*/frames")) for folder in (red, blue))).passed
    with pytest.raises(DataError, match=r"no reference was made from its prompt, '.*red balloon"):
        run(tmp_path, red, generated(tmp_path / "two", (BLUE, 0, frames), (BLUE, 1, frames)))
    with pytest.raises(DataError, match=r"no reference of its prompt has its seed, 0; their seeds are 5, 6"):
        run(tmp_path, red, generated(tmp_path / "seeds", (BLUE, 4, frames), (RED, 5, frames), (RED, 6, frames)))
    (next(red.iterdir()) / "settings.json").write_text("{")
    with pytest.raises(DataError, match=r"settings\.json: not a readable JSON file"):
        run(tmp_path, red, blue)


def test_of_a_generated_clip_without_frames_the_best_output_counts(tmp_path):
    clip = tmp_path / "generated" / "000_star"
    write(clip / "video.webm", drawn(), WebmAlphaWriter)
    write(clip / "video.mkv", drawn())
    write(clip / "preview.mp4", drawn(), OpaqueWriter)
    errors = {"preview.mp4": None, "video.webm": {"mean_error": 0.5}, "video.mkv": {"mean_error": 0.0}}
    outputs = [{"file": name, "format": name, "alpha_error": error} for name, error in errors.items()]
    (clip / "settings.json").write_text(json.dumps({"prompt": "star", "seed": 0, "outputs": outputs}))
    (found,) = find_clips(tmp_path / "generated")
    assert (found.name, found.row.foreground.name, found.prompt) == ("000_star", "video.mkv", "star")


def test_few_frames_at_a_time_give_the_same(tmp_path, pair, monkeypatch):
    whole = run(tmp_path, *pair).overall
    monkeypatch.setattr(evaluate_module, "PIXELS_AT_A_TIME", SIZE * SIZE)
    assert run(tmp_path, *pair).overall == pytest.approx(whole, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--fail-under", "alpha_psnr=10,composite_ssim=0.1"], 0),
        (["--fail-under", "alpha_psnr=60"], 1),
        (["--fail-under=alpha_psnr=10", "--fail-over", "edge_alpha_mad=1"], 1),
        (["--fail-over", "alpha_mad=1000,flicker=1000"], 0),
        (["--fail-under", "alpha_mad=5"], 2),
        (["--fail-under", "alpha_pnsr=5"], 2),
    ],
)
def test_bars_and_exit_codes(tmp_path, pair, options, code, capsys):
    command = ["evaluate", str(pair[0]), str(pair[1]), "--out", str(tmp_path / "out"), "--device", "cpu", *options]
    assert main(command) == code
    printed = capsys.readouterr()
    assert ("missed: " in printed.out) == (code == 1) and "Traceback" not in printed.err
    if code == 2:
        assert "write fail_over alpha_mad=5" in printed.err or "no figure is called alpha_pnsr" in printed.err
        assert not (tmp_path / "out").exists()


def test_a_region_that_is_nowhere_misses_its_bar(tmp_path):
    hard = drawn()
    hard[..., 3] = np.where(hard[..., 3] > 127, 255, 0)
    file = write(tmp_path / "hard.mkv", hard)
    report = run(tmp_path, file, file, fail_over="semi_transparent_alpha_mad=5")
    assert math.isnan(report.overall["semi_transparent_alpha_mad"]) and not report.passed
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["regions"]["semi_transparent"]["mean"]["alpha_mad"] is None


def test_means_of_psnr_are_of_errors():
    assert mean_figure("alpha_psnr", [20.0, math.inf]) == pytest.approx(20 + 10 * math.log10(2))
    assert mean_figure("alpha_psnr", [math.inf, math.nan]) == math.inf
    assert mean_figure("alpha_mad", [1.0, math.nan, 3.0]) == 2 and math.isnan(mean_figure("alpha_mad", [math.nan]))


def test_every_figure_has_a_direction(tmp_path, pair):
    assert set(run(tmp_path, *pair).clips[0].flat) <= set(BETTER)


@pytest.mark.parametrize(
    ("writer", "fps", "other", "is_same"),
    [
        (GifWriter, 16, 16, True), (GifWriter, 30, 30, True), (GifWriter, 24, 24, True), (GifWriter, 60, 50, True),
        (GifWriter, 25, 30, False), (GifWriter, 16, 24, False),
        (WebpWriter, 24, 24, True), (WebpWriter, 60, 60, True), (WebpWriter, 24, 25, False),
    ],
)  # fmt: skip
def test_rates_are_compared_within_what_a_format_can_say(tmp_path, writer, fps, other, is_same):
    """Of 24 frames a second, 5 frames of a GIF take 21 hundredths: it says 23.8."""
    frames = drawn(num_frames=5)
    frames[..., 3] = np.where(frames[..., 3] > 127, 255, 0)
    path = write(tmp_path / f"pred{writer.suffix}", frames, writer, fps=fps)
    truth = write(tmp_path / "ref.mkv", frames, fps=other)
    if is_same:
        assert run(tmp_path, path, truth).overall["alpha_mad"] == 0
    else:
        with pytest.raises(DataError, match="differ in frame rate"):
            run(tmp_path, path, truth)


BAD = {
    "sizes": (lambda p: write(p, drawn(size=48)), "differ in size: 48x48 and 32x32"),
    "counts": (lambda p: write(p, drawn(num_frames=3)), "differ in length: 3 and 4 frames"),
    "rates": (lambda p: write(p, drawn(), fps=24), "differ in frame rate: 24 and 16 frames per second"),
    "opaque": (lambda p: write(p.with_suffix(".mp4"), drawn(), OpaqueWriter), "no alpha plane"),
    "empty folder": (lambda p: p.with_suffix("").mkdir() or p.with_suffix(""), "holds no media"),
    "nothing": (lambda p: p, "no such file or folder"),
    "text": (lambda p: p.with_suffix(".mkv").write_text("no video") and p, "not a video"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_sentence_and_a_code(tmp_path, kind, capsys):
    make, message = BAD[kind]
    bad = make(tmp_path / "bad.mkv")
    good = write(tmp_path / "ref.mkv", drawn())
    out = ["--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["evaluate", str(bad), str(good), *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("wan-alpha evaluate: ") and message in error and str(bad) in error
    assert "Traceback" not in error and not (tmp_path / "out").exists()


def test_clips_that_have_no_reference_or_one_name(tmp_path):
    write(tmp_path / "preds" / "a.mkv", drawn())
    write(tmp_path / "preds" / "b.mkv", drawn())
    write(tmp_path / "refs" / "a.mkv", drawn())
    with pytest.raises(DataError, match=r"b\.mkv: no reference is called b; there are a"):
        run(tmp_path, tmp_path / "preds", tmp_path / "refs")
    shutil.copy(tmp_path / "preds" / "a.mkv", tmp_path / "preds" / "a.mov")
    with pytest.raises(DataError, match="two clips to be judged are called a"):
        run(tmp_path, tmp_path / "preds")


def test_frames_too_small_for_ssim(tmp_path):
    small = write(tmp_path / "small.mkv", drawn()[:, :8, :20].copy())
    with pytest.raises(DataError, match=r"small\.mkv: frames of 20x8; SSIM needs at least 11x11"):
        run(tmp_path, small, small)


def test_a_figure_without_its_reference_is_refused(tmp_path, pair):
    with pytest.raises(ConfigError, match="alpha_psnr: it is measured against a reference, and none was given"):
        run(tmp_path, pair[0], fail_under="alpha_psnr=3")
    with pytest.raises(ConfigError, match="worst_by: no figure is called worst; there are .*alpha_mad"):
        run(tmp_path, *pair, worst_by="worst")
    with pytest.raises(ConfigError, match="lpips_weights .*no such file"):
        run(tmp_path, *pair, lpips_weights=tmp_path / "alex.pth")
