"""A dataset examined as a whole: rows over processes, reports, repairs into a new folder, exit codes."""

import csv
import hashlib
import json
import re

import numpy as np
import pytest
from test_doctor_checks import draw, keyed_from_green, noisy, premultiply, shift, with_alpha

from wan_alpha.cli import guard
from wan_alpha.cli.main import main
from wan_alpha.data.clips import read_clip
from wan_alpha.data.doctor.pairing import find_lost_matte
from wan_alpha.data.doctor.repair import repair_dataset
from wan_alpha.data.doctor.report import write_sheet
from wan_alpha.data.doctor.run import examine_dataset, read_dataset
from wan_alpha.data.manifest import read_manifest
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.write import LosslessWriter


def write(path, clip, stream="rgba", fps=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    with LosslessWriter(path, fps, stream) as writer:
        writer.write(clip)


def write_manifest(folder, rows):
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("video_fgr", "video_pha", "prompt"), *rows])


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clean"
    write(folder / "a_rgb.mkv", draw(seed=1), "rgb")
    write(folder / "a_alpha.mkv", draw(seed=1), "matte")
    write(folder / "b.mkv", draw(5, speed=1.5))
    write_manifest(folder, [("a_rgb.mkv", "a_alpha.mkv", "one"), ("b.mkv", "", "two")])
    return folder


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A row of every repair, one clean row, and two that nothing can help."""
    folder, clip = tmp_path_factory.mktemp("set") / "faulty", draw()
    over_black = draw(backdrop=0)
    pairs = {
        "good": (clip, clip),
        "longer": (draw(seed=2), draw(9)),
        "late": (draw(backdrop=0, speed=2.0), shift(draw(speed=2.0), -2)),
        "inverted": (over_black, with_alpha(clip, lambda a: 255 - a)),
    }
    for name, (colour, matte) in pairs.items():
        write(folder / f"{name}_rgb.mkv", colour, "rgb")
        write(folder / f"{name}_alpha.mkv", matte, "matte")
    write(folder / "swapped_rgb.mkv", draw(seed=4), "matte")
    write(folder / "swapped_alpha.mkv", draw(seed=4), "rgb")
    write(folder / "lost_rgb.mkv", draw(seed=5), "rgb")
    write(folder / "matte" / "lost.mkv", draw(seed=5), "matte")
    write(folder / "dark.mkv", premultiply(draw(seed=6)))
    write(folder / "limited.mkv", with_alpha(draw(seed=3), lambda a: np.rint(16 + a * 219 / 255)))
    write(folder / "noisy.mkv", noisy(draw(seed=7)))
    write(folder / "odd.mkv", draw(seed=8)[:, :63, :95])
    write(folder / "again.mkv", noisy(draw(seed=7)))
    write(folder / "clear.mkv", with_alpha(clip, lambda a: 0 * a))
    names = ["good", "longer", "late", "inverted", "swapped"]
    rows = [(f"{name}_rgb.mkv", f"{name}_alpha.mkv", name) for name in names]
    rows.insert(4, ("limited.mkv", "", "limited"))
    rows += [("lost_rgb.mkv", "nowhere.mkv", "lost"), ("dark.mkv", "", "dark"), ("noisy.mkv", "", "noisy")]
    rows += [("odd.mkv", "", "odd"), ("again.mkv", "", "again"), ("clear.mkv", "", "clear"), ("gone.mkv", "", "gone")]
    write_manifest(folder, rows)
    return folder


def examine(folder, **options):
    return examine_dataset(read_dataset(folder), **{"workers": 1} | options)


def checks(report):
    return {row.prompt or row.index: [f.check for f in row.findings if not f.is_clean] for row in report.reports}


def test_every_fault_of_a_mixed_dataset_is_named(faulty):
    seen = []
    report = examine(faulty, progress=lambda done, total, name: seen.append((done, total)))
    assert seen == [(n, 13) for n in range(1, 14)]
    assert not report.is_clean
    assert checks(report) == {
        "good": [], "longer": ["frame_counts"], "late": ["time_offset"], "inverted": ["inverted"],
        "limited": ["limited_range"], "swapped": ["colour_matte"], "lost": ["bad_row"], "dark": ["premultiplied"],
        "noisy": ["matte_noise"], "odd": ["odd_size"], "again": ["matte_noise", "duplicate_clips"],
        "clear": ["all_clear"], "gone": ["bad_row"],
    }  # fmt: skip


def test_processes_find_what_one_process_finds(clean):
    one, two = examine(clean), examine(clean, workers=2)
    assert one.as_dict() == two.as_dict()
    assert one.is_clean and [row.names for row in one.reports] == [("a_rgb.mkv", "a_alpha.mkv"), ("b.mkv",)]


def test_a_folder_without_a_manifest_is_looked_at_too(clean):
    (clean / "metadata.csv").unlink()
    (clean / "c_rgb.mkv").write_bytes((clean / "a_rgb.mkv").read_bytes())
    report = examine(clean)
    assert checks(report) == {1: ["empty_caption"], 2: ["empty_caption"], 3: ["bad_row"]}
    assert "no c_alpha.* beside it" in report.reports[2].findings[0].message


def test_duplicates_and_ignored_checks(clean):
    (clean / "copy.mkv").write_bytes((clean / "b.mkv").read_bytes())
    write_manifest(clean, [("b.mkv", "", ""), ("copy.mkv", "", "x"), ("b.mkv", "", "y")])
    found = [[finding.check for finding in row.findings] for row in examine(clean).reports]
    assert found == [["empty_caption"], ["duplicate_clips"], ["duplicate_rows"]]
    report = examine(clean, ignore=("empty_caption", "duplicate_clips", "duplicate_rows"))
    assert report.is_clean and report.counts == {"error": 0, "warning": 0, "note": 0}


def test_fix_repairs_into_a_new_folder_and_leaves_the_originals(tmp_path, faulty):
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in faulty.rglob("*") if path.is_file()}
    dataset = read_dataset(faulty)
    report = examine_dataset(dataset, workers=1)
    fixed = repair_dataset(dataset, report, tmp_path / "fixed", workers=1)
    assert before == {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in faulty.rglob("*") if p.is_file()}
    assert fixed.repaired == {
        2: ("trim",), 3: ("re-pair",), 4: ("invert",), 5: ("expand",), 6: ("re-pair",), 7: ("re-pair",),
        8: ("unpremultiply",), 9: ("threshold",), 10: ("trim",),
    }  # fmt: skip
    assert [(row.row, row.reason.split(":")[0]) for row in fixed.left_out[:2]] == [
        (11, "duplicate_clips"),
        (12, "all_clear"),
    ]
    assert [row.row for row in fixed.left_out] == [11, 12, 13] and "no such file" in fixed.left_out[2].reason
    again = examine(tmp_path / "fixed")
    assert again.is_clean, checks(again)
    assert [row.is_duplicate for row in fixed.left_out] == [True, False, False]
    listed = read_manifest(fixed.metadata_path)
    swapped = next(row for row in listed if row.prompt == "swapped")
    assert [file.name for file in swapped.files] == ["swapped_rgb.mkv", "swapped_alpha.mkv"]
    rows = {row.prompt: read_clip(row) for row in listed}
    clip = draw()
    assert np.array_equal(rows["good"], clip)
    assert len(rows["longer"]) == 9 and np.array_equal(rows["longer"][..., :3], draw(seed=2)[:9, ..., :3])
    assert len(rows["late"]) == 11 and np.array_equal(rows["late"][..., 3], draw(speed=2.0)[:11, ..., 3])
    assert np.array_equal(rows["inverted"][..., 3], clip[..., 3])
    assert np.abs(rows["limited"][..., 3].astype(int) - clip[..., 3]).max() <= 1
    for name, seed in (("swapped", 4), ("lost", 5)):
        assert np.array_equal(rows[name][..., 3], draw(seed=seed)[..., 3])
    assert np.array_equal(rows["lost"][..., :3], draw(seed=5)[..., :3])
    shown = draw(seed=6)[..., 3] > 64
    assert np.abs(rows["dark"][shown].astype(int) - draw(seed=6)[shown]).max() <= 3
    assert not np.any((rows["noisy"][..., 3] > 0) & (rows["noisy"][..., 3] <= 6))
    assert rows["odd"].shape[1:3] == (62, 94)


@pytest.mark.parametrize("place", ["inside", "taken"])
def test_fix_wants_a_new_folder_outside(tmp_path, clean, place):
    dataset = read_dataset(clean)
    folder = clean / "fixed" if place == "inside" else tmp_path
    with pytest.raises(ConfigError, match="outside the dataset" if place == "inside" else "give --fix a new folder"):
        repair_dataset(dataset, examine_dataset(dataset, workers=1), folder, workers=1)


def test_a_lost_matte_must_be_the_only_one_that_fits(tmp_path):
    write(tmp_path / "x.mkv", draw(5), "rgb")
    write(tmp_path / "x_matte.mkv", draw(5), "matte")
    write(tmp_path / "y_matte.mkv", draw(5), "matte")
    write(tmp_path / "alpha" / "x.mkv", draw(4), "matte")
    assert find_lost_matte(tmp_path / "x.mkv", tmp_path) == tmp_path / "x_matte.mkv"
    write(tmp_path / "alpha" / "x.mkv", draw(5), "matte")
    assert find_lost_matte(tmp_path / "x.mkv", tmp_path) is None


def run(argv, monkeypatch):
    monkeypatch.setattr(guard, "check_torchvision", lambda: None)
    return main([str(word) for word in argv])


def test_the_command_on_a_clean_dataset(tmp_path, clean, monkeypatch, capsys):
    out = tmp_path / "out"
    assert run(["doctor", clean, "--out", out, "--workers", "1"], monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "2 rows: 2 clean; 0 errors, 0 warnings" in printed and "contact_sheet.html" in printed
    content = json.loads((out / "doctor.json").read_text())
    assert content["clean"] and content["rows"] == 2 and len(content["reports"]) == 2
    assert content["reports"][0]["files"] == ["a_rgb.mkv", "a_alpha.mkv"] and content["reports"][0]["num_frames"] == 13


def test_the_command_on_a_faulty_dataset(tmp_path, clean, monkeypatch, capsys):
    write(clean / "b.mkv", keyed_from_green(draw(5)))
    write_manifest(clean, [("a_rgb.mkv", "a_alpha.mkv", ""), ("b.mkv", "", "two")])
    common = ["doctor", clean, "--out", tmp_path / "out", "--workers", "1"]
    assert run([*common, "--json"], monkeypatch) == 1
    content = json.loads(capsys.readouterr().out)
    assert [row["findings"][0]["check"] for row in content["reports"]] == ["empty_caption", "fringe"]
    assert run(common, monkeypatch) == 1
    printed = capsys.readouterr().out
    assert "warning fringe" in printed and "notes: limits 2" in printed and "0 clean; 0 errors, 2 warnings" in printed
    assert run([*common, "--ignore", "empty_caption,fringe"], monkeypatch) == 0
    assert run([*common, "--ignore", "fringes"], monkeypatch) == 2
    assert "ignore = fringes: no such check" in capsys.readouterr().err
    assert run(["doctor", tmp_path / "none", "--out", tmp_path / "out"], monkeypatch) == 2


def test_fix_ends_well_only_where_nothing_is_left(tmp_path, clean, monkeypatch, capsys):
    write(clean / "b.mkv", premultiply(draw(5)))
    common = ["doctor", clean, "--out", tmp_path / "out", "--workers", "1"]
    assert run([*common, "--fix", tmp_path / "one"], monkeypatch) == 0
    assert "repaired row 2: unpremultiply" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "doctor.json").read_text())["fix"]["report"]["clean"]
    (clean / "a_rgb.mkv").write_bytes(b"no video")
    assert run([*common, "--fix", tmp_path / "two"], monkeypatch) == 1
    assert "left out row 1 (a_rgb.mkv)" in capsys.readouterr().out


def test_the_contact_sheet_is_one_file_and_text_stays_text(tmp_path, clean):
    caption = "</script><script>alert(1)</script> & <b>bold</b>"
    write_manifest(clean, [("a_rgb.mkv", "a_alpha.mkv", caption), ("b.mkv", "", "")])
    page = write_sheet(examine(clean), tmp_path / "sheet.html", 1).read_text(encoding="utf-8")
    assert page.count("</script>") == 2 and "<b>bold" not in page
    assert not re.search(r"(src|href)=.?https?:", page)
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL).group(1))
    assert data["left_out"] == 1 and len(data["rows"]) == 1
    # The row with a finding comes first.
    assert data["rows"][0]["files"] == ["b.mkv"] and len(data["rows"][0]["stills"]) == 5
    assert all(still.startswith("data:image/webp;base64,") for still in data["rows"][0]["stills"])


def test_an_unreadable_dataset_is_an_error(tmp_path):
    with pytest.raises(DataError, match="none.csv: no such folder or manifest$"):
        read_dataset(tmp_path / "none.csv")
    with pytest.raises(DataError, match="^https://a.b/c.csv: no such folder or manifest; addresses .* not followed"):
        read_dataset("https://a.b/c.csv")
    (tmp_path / "metadata.csv").write_text("file\nx.mp4\n")
    with pytest.raises(DataError, match="the header needs video_fgr or video"):
        read_dataset(tmp_path)


def test_columns_that_are_swapped_keep_the_clips_name(tmp_path):
    write(tmp_path / "set" / "x_rgb.mkv", draw(seed=4), "rgb")
    write(tmp_path / "set" / "x_alpha.mkv", draw(seed=4), "matte")
    write_manifest(tmp_path / "set", [("x_alpha.mkv", "x_rgb.mkv", "a ball")])
    dataset = read_dataset(tmp_path / "set")
    fixed = repair_dataset(dataset, examine_dataset(dataset, workers=1), tmp_path / "fixed", workers=1)
    (row,) = read_manifest(fixed.metadata_path)
    assert [file.name for file in row.files] == ["x_rgb.mkv", "x_alpha.mkv"]
    assert np.array_equal(read_clip(row), draw(seed=4))
