"""prepare: what it finds, what it makes of it, and that it goes on where it was."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from test_doctor_checks import draw, premultiply

from wan_alpha.data.clips import read_clip
from wan_alpha.data.discover import discover_sources
from wan_alpha.data.doctor.repair import repair_dataset
from wan_alpha.data.doctor.run import examine_dataset, read_dataset
from wan_alpha.data.manifest import read_manifest
from wan_alpha.data.prepare import prepare_dataset
from wan_alpha.data.prepare_row import PrepareSettings
from wan_alpha.data.scenes import CutFinder, split_at
from wan_alpha.errors import DataError
from wan_alpha.media.limits import MediaLimits
from wan_alpha.media.sprite_sheet import SpriteSheetWriter
from wan_alpha.media.write import LosslessWriter, OpaqueWriter


def write(path, clip, stream="rgba"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with LosslessWriter(path, 16, stream) as writer:
        writer.write(clip)


def rows_of(report):
    return {row.foreground.name.removesuffix("_rgb.mkv"): row for row in read_manifest(report.metadata_path)}


def test_layouts_at_any_depth(tmp_path, clip):
    folder = tmp_path / "in"
    for name in ("a_rgb.mkv", "deep/fgr/x.mkv", "deep/fgr/sub/y.mkv"):
        write(folder / name, clip, "rgb")
    for name in ("a_alpha.mkv", "deep/pha/x.mkv", "deep/pha/sub/y.mkv"):
        write(folder / name, clip, "matte")
    write(folder / "deep" / "z.mkv", clip)
    for part, slot in (("rgb", slice(0, 3)), ("alpha", 3)):
        (folder / "shot" / part).mkdir(parents=True)
        for t in range(3):
            Image.fromarray(np.ascontiguousarray(clip[t, ..., slot])).save(folder / "shot" / part / f"{t:03d}.png")
    found = {source.name: (source.foreground, source.matte) for source in discover_sources(folder)}
    assert {name: matte and matte.relative_to(folder).as_posix() for name, (_, matte) in found.items()} == {
        "a": "a_alpha.mkv", "deep/x": "deep/pha/x.mkv", "deep/sub/y": "deep/pha/sub/y.mkv", "deep/z": None,
        "shot": "shot/alpha",
    }  # fmt: skip
    rows = rows_of(prepare_dataset(folder, tmp_path / "out"))
    assert set(rows) == {"a", "deep-x", "deep-sub-y", "deep-z", "shot"}
    assert np.array_equal(read_clip(rows["shot"]), clip[:3])


def test_a_matte_that_was_declared_full_stays_so(tmp_path, clip):
    """Of levels 16 to 235, piled up at both ends, it would be taken for limited range if nothing said otherwise."""
    source, matte = tmp_path / "in", clip.copy()
    matte[..., 3] = np.where(clip[..., 3] > 127, 235, 16)
    write(source / "x_rgb.mkv", clip, "rgb")
    write(source / "x_alpha.mkv", matte, "matte")
    lines = ["video_fgr,video_pha,prompt,matte_range", "x_rgb.mkv,x_alpha.mkv,a ball,full"]
    (source / "metadata.csv").write_text("\n".join(lines) + "\n")
    for _ in range(2):  # the second time out of the journal
        report = prepare_dataset(source, tmp_path / "out")
        (row,) = read_manifest(report.metadata_path)
        assert row.matte_range == "full"
        assert np.array_equal(read_clip(row)[..., 3], matte[..., 3])
    fixed = repair_dataset(
        read_dataset(source), examine_dataset(read_dataset(source), workers=1), tmp_path / "fixed", 1
    )
    (row,) = read_manifest(fixed.metadata_path)
    assert np.array_equal(read_clip(row)[..., 3], matte[..., 3])


def test_a_sprite_sheet_is_no_clip(tmp_path, clip):
    with SpriteSheetWriter(tmp_path / "in" / "sheet.png", num_frames=4) as writer:
        (tmp_path / "in").mkdir()
        writer.write(clip[:4])
    with pytest.raises(DataError, match="sheet.json lists the frames of a sprite sheet"):
        prepare_dataset(tmp_path / "in", tmp_path / "out")


def test_a_loop_of_links_ends(tmp_path, clip):
    write(tmp_path / "in" / "x.mkv", clip[:2])
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert [source.name for source in discover_sources(tmp_path / "in")] == ["x"]


CAPTIONS = {
    "text": ("x.txt", "A fox,\n running.", None, "A fox, running."),
    "lines": ("x.txt", "A fox,\n\trunning.\r\n\nOne  fox.\nA fox, running.\n", None, '["A fox, running.", "One fox."]'),
    "list": ("x.json", json.dumps({"prompt": ["a", "b "]}), None, '["a", "b"]'),
    "bracket": ("x.txt", '["a"]', None, '["[\\"a\\"]"]'),
    "json prompt": ("x.json", json.dumps({"caption": "b", "prompt": "a"}), None, "a"),
    "json caption": ("x.json", json.dumps({"caption": "b", "fps": 3}), None, "b"),
    "json text alone": ("x.json", json.dumps("c"), None, "c"),
    "named key": ("x.json", json.dumps({"caption": "b", "long": "d"}), "long", "d"),
    "text before json": ("x.json", None, None, "t"),
}


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_beside_a_clip(tmp_path, name):
    file, text, column, expected = CAPTIONS[name]
    (tmp_path / "x.mkv").touch()
    (tmp_path / file).write_text(text or json.dumps("j"), encoding="utf-8-sig")
    if text is None:
        (tmp_path / "x.txt").write_text("t")
    (source,) = discover_sources(tmp_path, column)
    assert (source.prompt, source.problem) == (expected, None)


@pytest.mark.parametrize(
    "text, reason",
    [("{", "x.json is not valid JSON"), ('{"fps": 3}', "no text under prompt or caption"), ("[1]", "no text under")],
)
def test_a_bad_caption_file_is_named(tmp_path, text, reason):
    (tmp_path / "x.mkv").touch()
    (tmp_path / "x.json").write_text(text)
    assert reason in discover_sources(tmp_path)[0].problem


def test_rows_of_a_manifest(tmp_path, clip):
    folder = tmp_path / "in"
    write(folder / "b.mkv", premultiply(draw(5)))
    write(folder / "c.mkv", clip)
    lines = ["video,label,source_state", "b.mkv,dark,premultiplied", "c.mkv,light,", "gone.mkv,,", ""]
    (folder / "metadata.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"row 3 \(gone.mkv\): .*no such file"):
        prepare_dataset(folder, tmp_path / "out")
    report = prepare_dataset(folder / "metadata.csv", tmp_path / "out", skip_bad=True, caption_column="label")
    rows = rows_of(report)
    assert {name: row.prompt for name, row in rows.items()} == {"b": "dark", "c": "light"}
    assert np.array_equal(read_clip(rows["c"]), clip)
    shown = draw(5)[..., 3] > 64
    assert np.abs(read_clip(rows["b"])[shown].astype(int) - draw(5)[shown]).max() <= 3
    assert [row.row for row in report.skipped] == [3]


@pytest.mark.parametrize("state", ["straight", "premultiplied", "auto"])
def test_the_state_of_the_colour(tmp_path, state):
    write(tmp_path / "in" / "dark.mkv", premultiply(draw(5)))
    write(tmp_path / "in" / "fine.mkv", draw(5))
    settings = PrepareSettings(source_state=state)
    rows = rows_of(prepare_dataset(tmp_path / "in", tmp_path / "out", settings=settings))
    edge = (draw(5)[..., 3] > 64) & (draw(5)[..., 3] < 192)
    errors = {name: np.abs(read_clip(row)[edge].astype(int) - draw(5)[edge]).max() for name, row in rows.items()}
    assert (errors["dark"] <= 3) == (state != "straight")
    assert (errors["fine"] == 0) == (state != "premultiplied")


def test_packed_videos(tmp_path, clip):
    (tmp_path / "in").mkdir()
    grey = np.repeat(clip[..., 3:], 3, -1)
    with OpaqueWriter(tmp_path / "in" / "x.mp4", crf=0) as writer:
        writer.write(np.concatenate([clip[..., :3], grey], axis=2))
    write(tmp_path / "in" / "y.mkv", clip)
    with pytest.raises(DataError, match="x.mp4.*no alpha plane"):
        prepare_dataset(tmp_path / "in", tmp_path / "out")
    settings = PrepareSettings(packing="alpha_right")
    rows = rows_of(prepare_dataset(tmp_path / "in", tmp_path / "out", settings=settings))
    assert np.array_equal(read_clip(rows["y"]), clip)
    # At the seam of the halves the codec's half-size colour planes mix the two.
    assert np.abs(read_clip(rows["x"])[..., 2:, 3].astype(int) - clip[..., 2:, 3]).max() <= 3


def test_varying_rates_become_even(tmp_path, clip):
    """An animation's frames of 100, 300 and 100 ms at their mean rate of 6 per second."""
    (tmp_path / "in").mkdir()
    frames = [Image.fromarray(clip[t]) for t in (0, 3, 6)]
    path = tmp_path / "in" / "x.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 300, 100], blend=0)
    (row,) = rows_of(prepare_dataset(tmp_path / "in", tmp_path / "out")).values()
    shown = [next(t for t in (0, 3, 6) if np.array_equal(frame, clip[t])) for frame in read_clip(row)]
    assert shown == [0, 3, 3]


def test_a_second_run_keeps_what_is_unchanged(tmp_path, clip):
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b", "c"):
        write(source / f"{name}.mkv", clip[:3])
    assert prepare_dataset(source, out).num_kept == 0
    written = {path: path.stat().st_mtime_ns for path in (out / "videos").iterdir()}
    (source / "a.txt").write_text("a caption that came later")
    again = prepare_dataset(source, out)
    assert again.num_kept == 3 and rows_of(again)["a"].prompt == "a caption that came later"
    assert written == {path: path.stat().st_mtime_ns for path in (out / "videos").iterdir()}

    write(source / "b.mkv", clip[:2])
    (out / "videos" / "c_alpha.mkv").unlink()
    third = prepare_dataset(source, out)
    assert third.num_kept == 1 and third.num_rows == 3
    assert len(read_clip(rows_of(third)["b"])) == 2
    (out / ".prepare" / "a.json").write_text("{")
    assert prepare_dataset(source, out).num_kept == 2
    assert prepare_dataset(source, out, settings=PrepareSettings(split_scenes=True)).num_kept == 0


def test_what_was_done_before_a_bad_row_is_kept(tmp_path, clip):
    write(tmp_path / "in" / "a.mkv", clip[:2])
    (tmp_path / "in" / "b.mkv").touch()
    with pytest.raises(DataError, match="b.mkv"):
        prepare_dataset(tmp_path / "in", tmp_path / "out")
    write(tmp_path / "in" / "b.mkv", clip[:2])
    assert prepare_dataset(tmp_path / "in", tmp_path / "out").num_kept == 1


def test_near_duplicates_can_be_left_out(tmp_path):
    one, other = draw(5), draw(5, speed=1.2, seed=9)
    again = np.array(one)
    again[..., :3] = np.clip(one[..., :3].astype(int) + 2, 0, 255)
    for name, clip in (("a", one), ("b", other), ("c", again)):
        write(tmp_path / "in" / f"{name}.mkv", clip)
    assert prepare_dataset(tmp_path / "in", tmp_path / "all").num_rows == 3
    report = prepare_dataset(tmp_path / "in", tmp_path / "out", drop_near_duplicates=True)
    assert set(rows_of(report)) == {"a", "b"}
    assert [(row.row, row.reason.split(":")[0]) for row in report.skipped] == [(3, "looks like row 1 (a.mkv)")]
    assert not list((tmp_path / "out" / "videos").glob("c*"))
    # The same again: nothing is worked on twice, and the list is the same.
    again = prepare_dataset(tmp_path / "in", tmp_path / "out", drop_near_duplicates=True)
    assert again.num_kept == 3 and again.skipped == report.skipped and set(rows_of(again)) == {"a", "b"}
    assert not list((tmp_path / "out" / "videos").glob("c*"))
    # What it looked like has gone: it is wanted after all.
    (tmp_path / "in" / "a.mkv").unlink()
    later = prepare_dataset(tmp_path / "in", tmp_path / "out", drop_near_duplicates=True)
    assert set(rows_of(later)) == {"b", "c"} and not later.skipped
    assert len(list((tmp_path / "out" / "videos").glob("c*"))) == 2
    # Without the option it is wanted too, beside the other one.
    write(tmp_path / "in" / "a.mkv", one)
    prepare_dataset(tmp_path / "in", tmp_path / "out", drop_near_duplicates=True)
    everything = prepare_dataset(tmp_path / "in", tmp_path / "out")
    assert set(rows_of(everything)) == {"a", "b", "c"} and everything.num_kept == 2


def scenes(lengths=(7, 3, 6)):
    shown = [draw(length, seed=seed)[:, ::step] for seed, (length, step) in enumerate(zip(lengths, (1, -1, 1)))]
    for place, part in enumerate(shown):
        part[..., :3] = np.roll(part[..., :3], place, axis=-1)
    return np.concatenate([np.roll(part, 30 * place, axis=2) for place, part in enumerate(shown)])


def test_cuts_are_found_and_motion_is_none():
    finder = CutFinder()
    for frame in scenes():
        finder.see(frame)
    assert finder.cuts() == [7, 10]
    assert split_at([7, 10], 16) == [(0, 7), (7, 10), (10, 16)]
    for clip in (draw(20, speed=5.0), draw(1), np.zeros((4, 8, 8, 4), np.uint8)):
        finder = CutFinder()
        for frame in clip:
            finder.see(frame)
        assert finder.cuts() == []


@pytest.mark.parametrize("is_pair", [False, True])
def test_scenes_become_clips(tmp_path, is_pair):
    clip = scenes()
    if is_pair:
        write(tmp_path / "in" / "x_rgb.mkv", clip, "rgb")
        write(tmp_path / "in" / "x_alpha.mkv", clip, "matte")
    else:
        write(tmp_path / "in" / "x.mkv", clip)
    (tmp_path / "in" / "x.txt").write_text("both")
    report = prepare_dataset(tmp_path / "in", tmp_path / "out", settings=PrepareSettings(split_scenes=True))
    rows = rows_of(report)
    assert list(rows) == ["x-1", "x-3"] and {row.prompt for row in rows.values()} == {"both"}
    assert np.array_equal(read_clip(rows["x-1"]), clip[:7]) and np.array_equal(read_clip(rows["x-3"]), clip[10:])
    assert [row.reason for row in report.skipped] == ["frames 7 to 9: refused: a scene of 3 frames, fewer than 5"]


def test_limits_refuse_with_their_reasons(tmp_path):
    write(tmp_path / "in" / "x.mkv", scenes())
    limits = MediaLimits(min_side=None, max_frames=8)
    with pytest.raises(DataError, match=r"x.mkv: refused: 16 frames are more than 8 \(max_frames\)"):
        prepare_dataset(tmp_path / "in", tmp_path / "out", settings=PrepareSettings(limits=limits))
    # Of a clip that is cut, the scenes have to keep to them.
    settings = PrepareSettings(split_scenes=True, limits=limits)
    assert prepare_dataset(tmp_path / "in", tmp_path / "out", settings=settings).num_rows == 2


def test_links_that_leave_the_folder_are_told(tmp_path, clip):
    write(tmp_path / "far" / "x.mkv", clip[:2])
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "far" / "x.mkv", tmp_path / "in" / "x.mkv")
    shutil.copyfile(tmp_path / "far" / "x.mkv", tmp_path / "in" / "y.mkv")
    (warning,) = prepare_dataset(tmp_path / "in", tmp_path / "out").warnings
    assert "in/x.mkv: a link that leaves the source folder" in warning and "far/x.mkv" in warning
