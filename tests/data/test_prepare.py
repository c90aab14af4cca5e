import csv
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wan_alpha.data.clips import read_clip
from wan_alpha.data.discover import discover_sources
from wan_alpha.data.manifest import read_manifest
from wan_alpha.data.prepare import prepare_dataset
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.read import read_rgba
from wan_alpha.media.write import LosslessWriter, MatteWriter, OpaqueWriter, PngSequenceWriter, ProResWriter

SCRIPT = Path(__file__).parents[2] / "data_tools" / "prepare_rgba_dataset.py"


def write_mp4_pair(folder, name, clip):
    with OpaqueWriter(folder / f"{name}_rgb.mp4", 24) as colour, MatteWriter(folder / f"{name}_alpha.mp4", 24) as matte:
        colour.write(clip)
        matte.write(clip)


@pytest.fixture
def source(tmp_path, clip, lemur):
    """A pair, an RGBA mov, frames in a folder, and a real still; three of the four have captions."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    write_mp4_pair(folder, "fox", clip)
    (folder / "fox.txt").write_text("A fox,\n  running.\n")
    with ProResWriter(folder / "sub" / "owl.mov", 12) as writer:
        writer.write(clip[:6])
    (folder / "sub" / "owl.txt").write_text("An owl.")
    with PngSequenceWriter(folder / "walk") as writer:
        writer.write(clip)
    shutil.copyfile(lemur, folder / "lemur.png")
    (folder / "lemur.txt").write_text("A lemur.", encoding="utf-8-sig")
    (folder / "notes.md").write_text("not media")
    return folder


def read_table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mixed_folder(tmp_path, source, clip, lemur, workers):
    seen = []
    report = prepare_dataset(source, tmp_path / "out", workers=workers, progress=lambda *state: seen.append(state))
    assert seen == [(1, 4, "fox"), (2, 4, "lemur"), (3, 4, "sub/owl"), (4, 4, "walk")]
    assert (report.num_rows, report.num_without_prompt, report.skipped) == (4, 1, ())
    table = read_table(report.metadata_path)
    assert [tuple(row.values()) for row in table] == [
        ("videos/fox_rgb.mp4", "videos/fox_alpha.mp4", "A fox, running.", "video", "9", "32", "32", "24"),
        ("stills/lemur.png", "", "A lemur.", "static", "1", "680", "440", "16"),
        ("videos/sub-owl_rgb.mkv", "videos/sub-owl_alpha.mkv", "An owl.", "video", "6", "32", "32", "12"),
        ("videos/walk_rgb.mkv", "videos/walk_alpha.mkv", "", "video", "9", "32", "32", "16"),
    ]
    rows = read_manifest(report.metadata_path)
    assert (tmp_path / "out" / "videos" / "fox_rgb.mp4").read_bytes() == (source / "fox_rgb.mp4").read_bytes()
    assert np.array_equal(read_clip(rows[1])[0], np.array(Image.open(lemur)))
    assert np.array_equal(read_clip(rows[2]), read_rgba(source / "sub" / "owl.mov"))
    assert np.array_equal(read_clip(rows[3]), clip)
    assert sorted(os.listdir(tmp_path / "out")) == [".prepare", "metadata.csv", "metadata.jsonl", "stills", "videos"]
    assert read_manifest(tmp_path / "out" / "metadata.jsonl") == rows


def test_the_same_command_again_gives_the_same(tmp_path, source):
    first = prepare_dataset(source, tmp_path / "out").metadata_path.read_bytes()
    assert prepare_dataset(source, tmp_path / "out").metadata_path.read_bytes() == first


def test_links(tmp_path, source):
    prepare_dataset(source, tmp_path / "out", link=True)
    assert (tmp_path / "out" / "videos" / "fox_rgb.mp4").samefile(source / "fox_rgb.mp4")


@pytest.mark.parametrize("colour_name, matte_name", [("fgr", "pha"), ("fg", "alpha")])
def test_colour_and_matte_in_folders_of_their_own(tmp_path, clip, colour_name, matte_name):
    for name, writer_type in ((colour_name, OpaqueWriter), (matte_name, MatteWriter)):
        (tmp_path / "in" / name).mkdir(parents=True)
        with writer_type(tmp_path / "in" / name / "0000.mp4") as writer:
            writer.write(clip)
        for kind, part in (("rgb", clip[:1, ..., :3]), ("alpha", clip[:1, ..., 3])):
            if (kind == "rgb") == (name == colour_name):
                Image.fromarray(part[0]).save(tmp_path / "in" / name / "still.png")
    (tmp_path / "in" / colour_name / "0000.txt").write_text("beside the clip")
    (tmp_path / "in" / "still.txt").write_text("beside the folders")
    rows = read_manifest(prepare_dataset(tmp_path / "in", tmp_path / "out").metadata_path)
    assert [(row.foreground.name, row.kind, row.prompt) for row in rows] == [
        ("0000_rgb.mp4", "video", "beside the clip"),
        ("still.png", "static", "beside the folders"),
    ]
    assert np.array_equal(read_clip(rows[1]), clip[:1])


def test_equal_names_do_not_overwrite_each_other(tmp_path, clip):
    for folder, name in (("in/a", "b.mkv"), ("in", "a-b.mkv"), ("in", "A-B.mkv"), ("in", "?.mkv")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        with LosslessWriter(tmp_path / folder / name) as writer:
            writer.write(clip[:2])
    rows = read_manifest(prepare_dataset(tmp_path / "in", tmp_path / "out").metadata_path)
    names = [row.foreground.name.removesuffix("_rgb.mkv") for row in rows]
    assert names == ["clip", "A-B", "a-b-2", "a-b-3"]
    assert len(os.listdir(tmp_path / "out" / "videos")) == 8


def rgba(folder, clip):
    with LosslessWriter(folder / "x.mkv") as writer:
        writer.write(clip)


def with_alpha(clip, value):
    changed = clip.copy()
    changed[..., 3] = value
    return changed


def cut(path, keep=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def empty_file(folder, clip):
    (folder / "x.mp4").touch()


def cut_file(folder, clip):
    rgba(folder, clip)
    cut(folder / "x.mkv")


def no_alpha(folder, clip):
    with OpaqueWriter(folder / "x.mp4") as writer:
        writer.write(clip)


def all_opaque(folder, clip):
    rgba(folder, with_alpha(clip, 255))


def all_clear(folder, clip):
    rgba(folder, with_alpha(clip, 0))


def clear_still(folder, clip):
    Image.fromarray(with_alpha(clip, 0)[0]).save(folder / "x.png")


def rgb_without_matte(folder, clip):
    write_mp4_pair(folder, "x", clip)
    (folder / "x_alpha.mp4").unlink()


def matte_without_rgb(folder, clip):
    write_mp4_pair(folder, "x", clip)
    (folder / "x_rgb.mp4").unlink()


def two_mattes(folder, clip):
    write_mp4_pair(folder, "x", clip)
    for suffix in (".mov", ".mkv"):
        shutil.copyfile(folder / "x_alpha.mp4", folder / f"x_alpha{suffix}")
    (folder / "x_alpha.mp4").unlink()


def swapped(folder, clip):
    write_mp4_pair(folder, "x", clip)
    os.rename(folder / "x_rgb.mp4", folder / "t.mp4")
    os.rename(folder / "x_alpha.mp4", folder / "x_rgb.mp4")
    os.rename(folder / "t.mp4", folder / "x_alpha.mp4")


def shorter_matte(folder, clip):
    write_mp4_pair(folder, "x", clip)
    with MatteWriter(folder / "x_alpha.mp4") as writer:
        writer.write(clip[:5])


def smaller_matte(folder, clip):
    write_mp4_pair(folder, "x", clip)
    with MatteWriter(folder / "x_alpha.mp4") as writer:
        writer.write(clip[:, :16])


def cut_matte(folder, clip):
    write_mp4_pair(folder, "x", clip)
    cut(folder / "x_alpha.mp4", 0.8)


def caption_in_latin1(folder, clip):
    rgba(folder, clip)
    (folder / "x.txt").write_bytes("Füchschen".encode("latin-1"))


BAD = [
    (empty_file, "x.mp4", "empty"),
    (cut_file, "x.mkv", "cut short or damaged"),
    (no_alpha, "x.mp4", "no alpha plane"),
    (all_opaque, "x.mkv", "alpha is 255 everywhere"),
    (all_clear, "x.mkv", "alpha is 0 everywhere"),
    (clear_still, "x.png", "alpha is 0 everywhere"),
    (rgb_without_matte, "x_rgb.mp4", r"no x_alpha.\* beside it"),
    (matte_without_rgb, "x_alpha.mp4", r"a matte without its x_rgb.\*"),
    (two_mattes, "x_rgb.mp4", "several mattes could be meant: x_alpha.mkv, x_alpha.mov"),
    (swapped, "x_rgb.mp4", "are colour and matte swapped"),
    (shorter_matte, "x_rgb.mp4", "frame counts differ: 9, its matte x_alpha.mp4 5"),
    (smaller_matte, "x_rgb.mp4", "sizes differ: 32x32, its matte x_alpha.mp4 32x16"),
    (cut_matte, "x_rgb.mp4", "x_alpha.mp4: the file is cut short"),
    (caption_in_latin1, "x.mkv", "caption x.txt is not UTF-8"),
]


@pytest.mark.parametrize("spoil, file, reason", BAD, ids=[case[0].__name__ for case in BAD])
def test_a_bad_row_stops_or_is_left_out_and_listed(tmp_path, clip, spoil, file, reason):
    folder = tmp_path / "in"
    folder.mkdir()
    for good in ("a.mkv", "z.mkv"):
        with LosslessWriter(folder / good) as writer:
            writer.write(clip[:2])
    spoil(folder, clip)
    with pytest.raises(DataError, match=rf"row 2 \({file}\): .*{reason}"):
        prepare_dataset(folder, tmp_path / "strict", workers=2)
    assert not (tmp_path / "strict" / "metadata.csv").exists()

    report = prepare_dataset(folder, tmp_path / "lenient", skip_bad=True)
    assert report.num_rows == 2 and len(report.skipped) == 1
    assert (report.skipped[0].row, report.skipped[0].file) == (2, folder / file)
    assert [row["row"] for row in read_table(tmp_path / "lenient" / "skipped.csv")] == ["2"]
    assert [row.foreground.name for row in read_manifest(report.metadata_path)] == ["a_rgb.mkv", "z_rgb.mkv"]
    files = [path for path in (tmp_path / "lenient").rglob("*") if path.is_file()]
    left = {path.name for path in files if path.parent.name != ".prepare"}
    streams = {f"{name}_{stream}.mkv" for name in "az" for stream in ("rgb", "alpha")}
    assert left == {"metadata.csv", "metadata.jsonl", "skipped.csv"} | streams


def test_nothing_good_is_an_error_even_when_skipping(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.mp4").touch()
    with pytest.raises(DataError, match="none of 1 rows is good; the first: .*empty"):
        prepare_dataset(tmp_path / "in", tmp_path / "out", skip_bad=True)


def test_a_run_that_fails_leaves_no_list_of_an_earlier_one(tmp_path, source):
    metadata = prepare_dataset(source, tmp_path / "out").metadata_path
    (source / "bad.mp4").touch()
    with pytest.raises(DataError, match="bad.mp4"):
        prepare_dataset(source, tmp_path / "out")
    assert not metadata.exists()


def test_wrong_folders_are_refused(tmp_path, source):
    with pytest.raises(ConfigError, match="outside its source"):
        prepare_dataset(source, source / "out")
    with pytest.raises(ConfigError, match="workers = 0"):
        prepare_dataset(source, tmp_path / "out", workers=0)
    with pytest.raises(DataError, match="no such folder"):
        prepare_dataset(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no media"):
        prepare_dataset(tmp_path / "empty", tmp_path / "out")


def test_numbered_stills_with_captions_are_not_taken_for_frames(tmp_path, clip):
    (tmp_path / "stills").mkdir()
    for i in range(3):
        Image.fromarray(clip[i]).save(tmp_path / "stills" / f"{i}.png")
    assert [source.name for source in discover_sources(tmp_path)] == ["stills"]
    (tmp_path / "stills" / "0.txt").write_text("one picture")
    assert [source.name for source in discover_sources(tmp_path)] == ["stills/0", "stills/1", "stills/2"]


def test_the_script(tmp_path, source, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    common = [str(source), str(tmp_path / "out"), "--limits.min_side", "none", "--workers", "1"]
    assert main(common) == 0
    assert "metadata.csv: 4 clips, 1 without a prompt" in capsys.readouterr().out
    (source / "bad.mp4").touch()
    assert main(common) == 2
    assert "row 1 (bad.mp4)" in capsys.readouterr().err
    assert main([*common, "--skip-bad"]) == 0
    printed = capsys.readouterr().out
    assert "left out row 1" in printed and "4 clips, 1 left out, 4 kept from an earlier run" in printed
