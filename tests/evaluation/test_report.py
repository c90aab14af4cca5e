"""What a report finds in folders, and what it writes; the page itself is opened in test_report_page."""

import json
import shutil

import numpy as np
import pytest
from shown_runs import NUM_FRAMES, moving_square, write_generated, write_runs, write_training

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.evaluation.evaluate import evaluate
from wan_alpha.evaluation.report import write_report
from wan_alpha.evaluation.report_curves import MAX_POINTS, charts, thin
from wan_alpha.evaluation.report_evaluation import evaluation_tables
from wan_alpha.evaluation.report_figures import validation_table
from wan_alpha.evaluation.report_runs import Run, read_runs, short_labels
from wan_alpha.media.write import LosslessWriter, OpaqueWriter, write_png
from wan_alpha.training.config import load_recipe
from wan_alpha.training.json_figures import json_figures
from wan_alpha.training.recipes import EvaluateRecipe


@pytest.fixture
def runs(tmp_path):
    return write_runs(tmp_path)


def read_data(report):
    text = (report.page.parent / "report_files" / "data.js").read_text()
    return json.loads(text.removeprefix("wanReport.data = ").rstrip().removesuffix(";"))


def test_clips_of_one_prompt_stand_beside_their_reference(runs, tmp_path):
    first, second, true = runs
    data = read_data(write_report([first, second], tmp_path / "page", reference=true))
    assert [[clip["label"] for clip in group["clips"]] for group in data["groups"]] == [
        ["reference", "first, seed 0", "second, seed 1"]
    ]
    reference, clip, _ = data["groups"][0]["clips"]
    assert clip["reference"] == reference["key"] and (clip["width"], clip["height"], clip["num_frames"]) == (32, 24, 5)
    assert clip["coverage"]["opaque"] == pytest.approx(64 / (24 * 32))
    assert [chart["title"] for chart in data["charts"]] == [
        "stage1: loss", "stage1: validation alpha_psnr", "stage1: learning_rate",
    ]  # fmt: skip
    assert [series["name"] for series in data["charts"][0]["series"]] == ["first", "second"]
    recipe = data["settings"][0]
    assert recipe["title"] == "Recipe of stage1"
    assert recipe["headings"] == ["first", "second"]
    differs = {row["name"]: row["differs"] for row in recipe["rows"]}
    assert differs == {"training.learning_rate": True, "seed": False}
    assert "this report" in data["settings"][-1]["headings"]


def test_clips_are_told_apart_by_what_made_them(tmp_path):
    """Checkpoints and seeds of one run: the options that differ are said, those that do not are not."""
    for number, step in enumerate((100, 200)):
        write_generated(tmp_path / "run" / f"00{number}", moving_square()[:1])
        path = tmp_path / "run" / f"00{number}" / "settings.json"
        settings = json.loads(path.read_text())
        settings["recipe"]["model"] = {"adapter": f"runs/a/step_{step}/adapter.safetensors", "wan": "tiny"}
        path.write_text(json.dumps(settings))
    (group,) = read_data(write_report([tmp_path / "run"], tmp_path / "page"))["groups"]
    labels = [clip["label"] for clip in group["clips"]]
    assert labels == [f"adapter step_{step}/adapter.safetensors" for step in (100, 200)]


def test_the_page_needs_no_network_and_says_no_path_of_its_own(runs, tmp_path):
    report = write_report(runs[:2], tmp_path / "page", title="of <two>")
    text = "".join(
        path.read_text()
        for path in report.page.parent.rglob("*")
        if path.suffix in (".html", ".js", ".css") and "clips" not in path.parts
    )
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "").replace("file://", "")
    assert str(tmp_path) not in text
    assert "<title>wan-alpha of &lt;two&gt;</title>" in text


def test_frames_are_handed_over_as_they_are(runs, tmp_path):
    import base64
    import io

    from PIL import Image

    write_report(runs[:1], tmp_path / "page")
    name, text = (tmp_path / "page" / "report_files" / "clips" / "c0" / "00003.js").read_text().split('"')[1::2]
    frame = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    assert name == "c0/3" and (frame == moving_square()[3]).all()


def test_media_of_any_kind_are_clips(tmp_path):
    folder = tmp_path / "footage"
    folder.mkdir()
    with LosslessWriter(folder / "square.mkv", 8) as writer:
        writer.write(moving_square())
    with OpaqueWriter(folder / "preview.mp4", 8) as writer:
        writer.write(moving_square())
    write_png(folder / "still.png", moving_square()[0])
    (folder / "notes.txt").write_text("no clip")
    for stream, name in (("rgb", "pair_rgb.mkv"), ("matte", "pair_alpha.mkv")):
        with LosslessWriter(folder / name, 8, stream) as writer:
            writer.write(moving_square())
    report = write_report([folder], tmp_path / "page", max_frames=3)
    groups = read_data(report)["groups"]
    assert [(group["title"], group["clips"][0]["num_frames"]) for group in groups] == [
        ("pair", 3), ("square", 3), ("still", 1),
    ]  # fmt: skip
    assert [group["clips"][0]["has_video"] for group in groups] == [True, True, False]
    shares = [group["clips"][0]["coverage"] for group in groups]
    assert shares[0] == shares[1] and shares[0]["clear"] == pytest.approx(2 / 3)
    one = read_data(write_report([folder / "square.mkv"], tmp_path / "one"))
    assert one["groups"][0]["clips"][0]["num_frames"] == NUM_FRAMES


def test_what_was_evaluated_stands_beside_its_reference(tmp_path):
    """An evaluation of pairs of colour and matte: its clips, worst first, beside what they were compared with."""
    for folder, strip_alpha in (("ref", 128), ("pred", 228)):
        for name in ("good", "poor"):
            (tmp_path / folder).mkdir(exist_ok=True)
            for stream, end in (("rgb", "rgb"), ("matte", "alpha")):
                with LosslessWriter(tmp_path / folder / f"{name}_{end}.mkv", 8, stream) as writer:
                    writer.write(moving_square(strip_alpha if name == "poor" else 128))
    options = {"pred": tmp_path / "pred", "reference": tmp_path / "ref", "lpips": "off", "device": "cpu"}
    evaluate(load_recipe(EvaluateRecipe, None, options | {"output_dir": tmp_path / "evaluated"}))
    data = read_data(write_report([tmp_path / "evaluated"], tmp_path / "page"))
    assert [[clip["label"] for clip in group["clips"]] for group in data["groups"]] == [
        ["reference", "poor"], ["reference", "good"],
    ]  # fmt: skip
    overall, by_clip, special = data["tables"][:3]
    figures = {row[0]: row[1:] for row in overall["rows"]}
    assert figures["alpha mad"] == ["small", pytest.approx(1e3 * 100 / 255 / 4 / 2)]
    assert figures["alpha psnr"][0] == "large" and figures["composite grey ssim"][0] == "large"
    columns = [column["name"] for column in by_clip["columns"]]
    kinds = dict(zip(columns, (column["kind"] for column in by_clip["columns"]), strict=True))
    assert (kinds["clip"], kinds["alpha mad"], kinds["alpha psnr"]) == ("text", "low", "high")
    rows = [dict(zip(columns, row, strict=True)) for row in by_clip["rows"]]
    assert [row["clip"] for row in rows] == ["poor", "good"]
    assert rows[0]["alpha mad"] == pytest.approx(1e3 * 100 / 255 / 4) and rows[1]["alpha mad"] == 0
    assert special["title"].endswith("backgrounds and regions") and len(special["rows"]) == 2


def test_infinity_and_nothing_are_json():
    figures = json_figures({"mean": {"a_psnr": float("inf"), "mad": float("nan"), "b_mse": 1.0}})
    clip = {"name": "inf", **figures, "transparency": {"collapse": "all clear"}}
    run = Run("run", None, evaluations=[("", figures | {"clips": [clip]})])
    run.validations = [("v", {"alpha": figures["mean"] | {"psnr": "inf"}})]
    overall, by_clip, special = evaluation_tables([run])
    assert [row[2] for row in overall["rows"]] == ["∞", None, 1.0] and special is None
    kinds = {column["name"]: column["kind"] for column in by_clip["columns"]}
    assert kinds == {"clip": "text", "a psnr": "high", "b mse": "low", "transparency collapse": "text"}
    assert by_clip["rows"] == [["inf", "∞", 1.0, "all clear"]]
    reconstruction = validation_table([run])
    assert reconstruction["rows"][0][4] == "∞"
    json.dumps([overall, by_clip, reconstruction], allow_nan=False)


def test_an_earlier_report_is_replaced_and_other_pages_are_kept(runs, tmp_path):
    page = tmp_path / "page"
    write_report(runs[:2], page)
    write_report(runs[:1], page)
    assert [path.name for path in (page / "report_files" / "clips").iterdir() if path.name != "probe"] == ["c0"]
    assert sorted(path.name for path in page.iterdir()) == ["index.html", "report_files"]
    (page / "index.html").write_text("<title>my holidays</title>")
    with pytest.raises(ConfigError, match="not a page of wan-alpha's and is kept"):
        write_report(runs[:1], page)
    assert "holidays" in (page / "index.html").read_text()


def test_a_failed_report_leaves_the_earlier_one(runs, tmp_path):
    page = write_report(runs[:1], tmp_path / "page").page
    before = read_data(write_report(runs[:1], tmp_path / "page"))
    broken = runs[0] / "000_a_red_square" / "frames" / "00002.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match="00002.png"):
        write_report(runs[:1], tmp_path / "page")
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "report_files"]
    text = (page.parent / "report_files" / "data.js").read_text()
    assert json.loads(text.removeprefix("wanReport.data = ").rstrip().removesuffix(";")) == before


def test_bad_input_is_named(runs, tmp_path):
    first, _, true = runs
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nowhere: no such folder or file"):
        write_report([tmp_path / "nowhere"], tmp_path / "page")
    with pytest.raises(DataError, match="empty: holds nothing that a report shows"):
        write_report([tmp_path / "empty"], tmp_path / "page")
    with OpaqueWriter(tmp_path / "opaque.mp4", 8) as writer:
        writer.write(moving_square())
    with pytest.raises(DataError, match=r"opaque\.mp4.* alpha"):
        write_report([tmp_path / "opaque.mp4"], tmp_path / "page")
    shutil.copytree(true, tmp_path / "strangers")
    (tmp_path / "strangers" / "000_a_red_square").rename(tmp_path / "strangers" / "blue")
    with pytest.raises(DataError, match="no clip there has the name of a clip"):
        write_report([first], tmp_path / "page", reference=tmp_path / "strangers")
    shutil.rmtree(true / "000_a_red_square")
    write_generated(tmp_path / "short", moving_square()[:3])
    shutil.move(tmp_path / "short" / "frames", true / "000_a_red_square")
    with pytest.raises(DataError, match="has 3 frames of 32x24, its clip .* has 5 frames of 32x24"):
        write_report([first], tmp_path / "page", reference=true)
    assert not (tmp_path / "page").exists(), "refused before anything is written"
    (first / "evaluation.json").write_text("[1")
    with pytest.raises(DataError, match=r"evaluation\.json: not a readable JSON file"):
        read_runs([first])


def test_labels_are_as_short_as_they_can_be():
    assert short_labels(["/x/a/stage1", "/x/b/stage1"]) == ["a/stage1", "b/stage1"]
    assert short_labels(["/x/a", "/x/b"]) == ["a", "b"]
    assert short_labels(["/x/a", "/x/a"]) == ["a (1)", "a (2)"]
    assert short_labels(["/a", "/x/a"]) == ["//a", "x/a"]


def test_long_curves_are_thinned_to_means(tmp_path):
    points = [(step, float(step % 2)) for step in range(1, 2 * MAX_POINTS + 1)]
    assert thin(points) == [[step, 0.5] for step in range(2, 2 * MAX_POINTS + 1, 2)]
    assert thin(points[:3]) == [[1, 1.0], [2, 0.0], [3, 1.0]]
    write_training(tmp_path / "run", 1e-4, 1.0)
    (chart, *_) = charts(read_runs([tmp_path / "run"]))
    assert chart["title"] == "loss" and chart["series"][0]["points"][0] == [1, 1.0]
