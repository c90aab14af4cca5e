"""What a dataset can get wrong: each gives the DataError that names row and file, or the finding that says what to do.

Every case is a dataset whose second row is bad. `doctor` says what is wrong with it, `prepare` refuses it or not.
"""

import json
import os
import subprocess
from dataclasses import dataclass

import numpy as np
import pytest
from test_doctor_checks import draw, premultiply, with_alpha

from wan_alpha.data.clips import read_clip
from wan_alpha.data.doctor.row import examine_row
from wan_alpha.data.doctor.run import examine_dataset, read_dataset
from wan_alpha.data.manifest import read_manifest
from wan_alpha.data.prepare import prepare_dataset
from wan_alpha.errors import DataError
from wan_alpha.media.ffmpeg import executable
from wan_alpha.media.limits import NO_LIMITS
from wan_alpha.media.read import read_rgba
from wan_alpha.media.write import LosslessWriter, MatteWriter, OpaqueWriter, ProResWriter

CLIP = draw(7, speed=2.0)


def encode(*arguments):
    subprocess.run([executable(), "-v", "error", "-y", *map(str, arguments)], check=True)


def rgba(folder, clip=CLIP, name="x.mkv", fps=16):
    with LosslessWriter(folder / name, fps) as writer:
        writer.write(clip)
    return {"video": name}


def pair(folder, colour=CLIP, matte=CLIP, rates=(16, 16)):
    names = "x_rgb.mkv", "x_alpha.mkv"
    for name, clip, stream, fps in zip(names, (colour, matte), ("rgb", "matte"), rates, strict=True):
        with LosslessWriter(folder / name, fps, stream) as writer:
            writer.write(clip)
    return {"video_fgr": "x_rgb.mkv", "video_pha": "x_alpha.mkv"}


def zero_bytes(folder):
    (folder / "x.mp4").touch()
    return {"video": "x.mp4"}


def truncated(folder):
    record = rgba(folder)
    data = (folder / "x.mkv").read_bytes()
    (folder / "x.mkv").write_bytes(data[: len(data) * 6 // 10])
    return record


def text_as_video(folder):
    (folder / "x.mp4").write_text("hello\n")
    return {"video": "x.mp4"}


def playlist_as_video(folder):
    (folder / "x.mkv").write_text("ffconcat version 1.0\nfile good.mkv\n")
    return {"video": "x.mkv"}


def audio_only(folder):
    encode("-f", "lavfi", "-i", "sine=duration=0.2", folder / "x.mp4")
    return {"video": "x.mp4"}


def no_frames(folder):
    encode("-f", "lavfi", "-i", "color=size=32x32:duration=1", "-frames:v", "0", "-c:v", "rawvideo", folder / "x.avi")
    return {"video": "x.avi"}


def folder_as_video(folder):
    (folder / "x").mkdir()
    return {"video": "x"}


def pipe_as_video(folder):
    os.mkfifo(folder / "x.mp4")
    return {"video": "x.mp4"}


def missing_alpha(folder):
    with OpaqueWriter(folder / "x.mp4") as writer:
        writer.write(CLIP)
    return {"video": "x.mp4"}


def varying_rate(folder):
    rgba(folder, draw(20), "even.mkv")
    keep = "select='not(between(n,3,5)+between(n,9,15))'"
    encode("-i", folder / "even.mkv", "-vf", keep, "-fps_mode", "vfr", "-c:v", "ffv1", folder / "x.mkv")
    (folder / "even.mkv").unlink()
    return {"video": "x.mkv"}


def one_rotated(folder):
    for name, writer_type in (("x_rgb.mp4", OpaqueWriter), ("x_alpha.mp4", MatteWriter)):
        with writer_type(folder / name) as writer:
            writer.write(CLIP)
    os.rename(folder / "x_rgb.mp4", folder / "flat.mp4")
    encode("-display_rotation", -90, "-i", folder / "flat.mp4", "-c", "copy", folder / "x_rgb.mp4")
    return {"video_fgr": "x_rgb.mp4", "video_pha": "x_alpha.mp4"}


def ten_bit(folder):
    with ProResWriter(folder / "x.mov") as writer:
        writer.write(CLIP)
    return {"video": "x.mov"}


def swapped(folder):
    pair(folder)
    return {"video_fgr": "x_alpha.mkv", "video_pha": "x_rgb.mkv"}


def lost_matte(folder):
    return pair(folder) | {"video_pha": "nowhere.mkv"}


def link_out(folder):
    outside = folder.parent / "outside"
    outside.mkdir()
    rgba(outside)
    (folder / "x.mkv").symlink_to(outside / "x.mkv")
    return {"video": "x.mkv"}


def same_row_again(folder):
    return {"video": "good.mkv"}


def same_clip_again(folder):
    (folder / "x.mkv").write_bytes((folder / "good.mkv").read_bytes())
    return {"video": "x.mkv"}


@dataclass(frozen=True)
class Case:
    """How the second row is made; the check, severity and words of doctor's finding; the words of prepare's DataError.

    `refusal` None: prepare takes the row. `make`: folder -> record, or the record itself.
    """

    make: object
    check: str
    severity: str
    words: str
    refusal: str | None = None
    file: str = ""


def refused(make, check, words, file):
    """An error that doctor and prepare tell in the same words."""
    return Case(make, check, "error", words, words, file)


CASES = {
    "zero bytes": refused(zero_bytes, "unreadable", "the file is empty (0 bytes)", "x.mp4"),
    "truncated": refused(truncated, "unreadable", "cut short or damaged", "x.mkv"),
    "text renamed .mp4": refused(text_as_video, "unreadable", "not a video that can be read", "x.mp4"),
    "playlist renamed .mkv": refused(playlist_as_video, "unreadable", "not a video that can be read", "x.mkv"),
    "audio only": refused(audio_only, "unreadable", "holds no video stream", "x.mp4"),
    "no frames": refused(no_frames, "unreadable", "holds no video frames", "x.avi"),
    "folder without frames": refused(folder_as_video, "unreadable", "without image files", "x"),
    "named pipe": refused(pipe_as_video, "unreadable", "not a regular file", "x.mp4"),
    "unequal counts": refused(
        lambda f: pair(f, matte=CLIP[:5]), "frame_counts", "frame counts differ: 7, its matte x_alpha.mkv 5",
        "x_rgb.mkv",
    ),
    "unequal sizes": refused(
        lambda f: pair(f, matte=CLIP[:, :64]), "frame_sizes", "sizes differ: 96x96, its matte x_alpha.mkv 96x64",
        "x_rgb.mkv",
    ),
    "missing alpha": refused(missing_alpha, "no_alpha", "no alpha plane (h264, yuv420p) and no matte", "x.mp4"),
    "all clear": refused(
        lambda f: rgba(f, with_alpha(CLIP, lambda a: 0 * a)), "all_clear", "alpha is 0 everywhere", "x.mkv"
    ),
    "all opaque": refused(
        lambda f: rgba(f, with_alpha(CLIP, lambda a: 0 * a + 255)), "all_opaque", "alpha is 255 everywhere", "x.mkv"
    ),
    "colour and matte swapped": refused(swapped, "colour_matte", "are colour and matte swapped?", "x_alpha.mkv"),
    "matte that is not there": refused(lost_matte, "bad_row", "nowhere.mkv: no such file", "x_rgb.mkv"),
    "absolute path": refused({"video": "/etc/hostname"}, "path_outside", "leaves the dataset folder", "hostname"),
    "path with ..": refused({"video": "../x.mkv"}, "path_outside", "leaves the dataset folder", "x.mkv"),
    "http: path": refused(
        {"video": "http://a.b/x.mp4"}, "bad_row", "addresses and protocols are not followed", "x.mp4"
    ),
    "concat: path": refused(
        {"video": "concat:good.mkv|good.mkv"}, "bad_row", "addresses and protocols are not followed", "concat:good.mkv"
    ),
    "NUL in a name": refused({"video": "x\0.mkv"}, "bad_row", "a path cannot hold a zero byte", "x?.mkv"),
    "newline in a name": refused({"video": "x\n.mkv"}, "bad_row", "no such file", "x\n.mkv"),
    "name that starts with -": refused({"video": "-i.mkv"}, "bad_row", "no such file", "-i.mkv"),
    "name that no disk holds": refused({"video": "x" * 300}, "bad_row", "not a file name", "xxx"),
    "no file named": refused({"video": "", "prompt": "p"}, "bad_row", "no file is named", "row 2"),
    "unknown type": refused(
        {"video": "good.mkv", "type": "moving"}, "bad_row", "type 'moving' is not one of", "good.mkv"
    ),
    "unequal frame rates": Case(
        lambda f: pair(f, rates=(16, 24)), "frame_rates", "warning", "16 per second, its matte"
    ),
    "odd sizes": Case(lambda f: rgba(f, CLIP[:, :63, :95]), "odd_size", "warning", "odd size 95x63"),
    "variable fps": Case(varying_rate, "variable_frame_rate", "warning", "variable frame rate"),
    "rotation tag": Case(one_rotated, "rotation_tag", "warning", "turns the frames by 90 degrees"),
    "premultiplied stored as straight": Case(
        lambda f: rgba(f, premultiply(CLIP)), "premultiplied", "error", "colour is premultiplied by alpha"
    ),
    "limited-range alpha": Case(
        lambda f: rgba(f, with_alpha(CLIP, lambda a: np.rint(16 + a * 219 / 255))), "limited_range", "warning",
        "16 and 235",
    ),
    "limited-range matte": Case(
        lambda f: pair(f, matte=with_alpha(CLIP, lambda a: np.rint(16 + a * 219 / 255))), "limited_range", "note",
        "stretched to 0 to 255 on reading",
    ),
    "10-bit": Case(ten_bit, "bit_depth", "note", "bits per channel; training works in 8 bits"),
    "link out of the root": Case(link_out, "outside_link", "warning", "leaves the dataset's folder"),
    "the same row twice": Case(same_row_again, "duplicate_rows", "warning", "the same files as row 1"),
    "the same clip twice": Case(same_clip_again, "duplicate_clips", "warning", "the same frames as row 1 (good.mkv)"),
    "empty caption": Case(lambda f: rgba(f) | {"prompt": ""}, "empty_caption", "warning", "the caption is empty"),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    rgba(folder, draw(5, seed=3), "good.mkv")
    return folder / "good.mkv"


def make_dataset(folder, good, make):
    folder.mkdir()
    (folder / "good.mkv").write_bytes(good.read_bytes())
    record = {"prompt": "bad"} | (make(folder) if callable(make) else make)
    lines = [json.dumps({"video": "good.mkv", "prompt": "good"}), json.dumps(record)]
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_there_are_enough_cases():
    assert len(CASES) + len(BROKEN_LISTS) >= 25


@pytest.mark.parametrize("name", CASES)
def test_a_bad_row(tmp_path, good, name):
    case = CASES[name]
    folder = make_dataset(tmp_path / "set", good, case.make)
    report = examine_dataset(read_dataset(folder), workers=1, num_pictured=0)
    assert report.reports[0].is_clean, report.reports[0].findings
    findings = {finding.check: finding for finding in report.reports[1].findings}
    assert case.check in findings, findings
    assert (findings[case.check].severity, report.reports[1].index) == (case.severity, 2)
    assert case.words in findings[case.check].message
    assert report.is_clean == (case.severity == "note")

    if case.refusal is None:
        assert prepare_dataset(folder, tmp_path / "out").num_rows == 2
        return
    with pytest.raises(DataError) as caught:
        prepare_dataset(folder, tmp_path / "out")
    assert str(caught.value).startswith(f"row 2 ({case.file}") and case.refusal in str(caught.value)
    assert not (tmp_path / "out" / "metadata.csv").exists()


BROKEN_LISTS = {
    "missing columns": (b"file,caption\ngood.mkv,x\n", "metadata.csv: the header needs video_fgr or video"),
    "not UTF-8": ("video\nF\xfcchse.mkv\n".encode("latin-1"), "metadata.csv: not UTF-8 text"),
    "comma in a caption": (b"video,prompt\ngood.mkv,a fox, running\n", "metadata.csv, row 1: more values than columns"),
    "no rows": (b"video,prompt\n", "metadata.csv: the manifest has no rows"),
    "empty": (b"", "metadata.csv: the header needs video_fgr or video, it has nothing"),
}


@pytest.mark.parametrize("name", BROKEN_LISTS)
def test_a_broken_list(tmp_path, good, name):
    content, words = BROKEN_LISTS[name]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "good.mkv").write_bytes(good.read_bytes())
    (tmp_path / "set" / "metadata.csv").write_bytes(content)
    for read in (read_dataset, read_manifest, lambda path: prepare_dataset(path, tmp_path / "out")):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "set" if read is not read_manifest else tmp_path / "set" / "metadata.csv")
        assert words in str(caught.value)


def test_a_byte_order_mark_is_no_fault(tmp_path, good):
    (tmp_path / "good.mkv").write_bytes(good.read_bytes())
    (tmp_path / "metadata.csv").write_text("video,prompt\ngood.mkv,x\n", encoding="utf-8-sig")
    assert examine_dataset(read_dataset(tmp_path), workers=1).is_clean


ODD_NAMES = ("-i.mkv", "-version", "http:x.mkv", "concat:a|b.mkv", "a\nb.mkv", "file:x.mkv", "%03d.mkv", "a'b\".mkv")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_ffmpeg_is_handed_files_and_nothing_else(tmp_path, good, name, monkeypatch):
    (tmp_path / name).write_bytes(good.read_bytes())
    commands, popen = [], subprocess.Popen

    def record(command, *arguments, **options):
        commands.append(command)
        return popen(command, *arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", record)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.jsonl").write_text(json.dumps({"video": name, "prompt": "x"}))
    (row,) = read_manifest("m.jsonl")
    assert np.array_equal(read_clip(row), draw(5, seed=3))
    assert np.array_equal(read_rgba(name, 1, 1), draw(5, seed=3)[1:2])
    assert examine_row(row, tmp_path, NO_LIMITS).is_clean
    assert commands
    for command in commands:
        inputs = [value for option, value in zip(command, command[1:], strict=False) if option == "-i"]
        assert inputs == [f"file:{tmp_path / name}"]
        assert name not in command and "-protocol_whitelist" in command
