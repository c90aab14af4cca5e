import os

import numpy as np
import pytest
from PIL import Image

from wan_alpha.errors import DataError
from wan_alpha.media.probe import probe
from wan_alpha.media.read import read_rgba
from wan_alpha.media.write import LosslessWriter, OpaqueWriter, PngSequenceWriter


def cut(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def missing(folder, clip):
    return folder / "none.mp4"


def empty(folder, clip):
    (folder / "a.mp4").touch()
    return folder / "a.mp4"


def text(folder, clip):
    (folder / "a.mp4").write_text("hello\n")
    return folder / "a.mp4"


def text_as_png(folder, clip):
    (folder / "a.png").write_text("hello\n")
    return folder / "a.png"


def cut_mkv(folder, clip):
    with LosslessWriter(folder / "a.mkv") as writer:
        writer.write(clip)
    cut(folder / "a.mkv", 0.6)
    return folder / "a.mkv"


def cut_mp4(folder, clip):
    with OpaqueWriter(folder / "a.mp4") as writer:
        writer.write(clip)
    cut(folder / "a.mp4", 0.8)
    return folder / "a.mp4"


def cut_mp4_in_its_header(folder, clip):
    with OpaqueWriter(folder / "a.mp4") as writer:
        writer.write(clip)
    cut(folder / "a.mp4", 0.1)
    return folder / "a.mp4"


def cut_png(folder, clip):
    Image.fromarray(clip[0]).save(folder / "a.png")
    cut(folder / "a.png", 0.5)
    return folder / "a.png"


def playlist(folder, clip):
    with LosslessWriter(folder / "real.mkv") as writer:
        writer.write(clip)
    (folder / "a.mkv").write_text("ffconcat version 1.0\nfile real.mkv\n")
    return folder / "a.mkv"


def folder_without_frames(folder, clip):
    (folder / "frames").mkdir()
    return folder / "frames"


def folder_of_two_sizes(folder, clip):
    with PngSequenceWriter(folder / "frames") as writer:
        writer.write(clip)
    Image.fromarray(clip[0, :16]).save(folder / "frames" / "00002.png")
    return folder / "frames"


def folder_with_a_cut_frame(folder, clip):
    with PngSequenceWriter(folder / "frames") as writer:
        writer.write(clip)
    cut(folder / "frames" / "00004.png", 0.5)
    return folder / "frames"


def wrong_bytes(folder, clip):
    with LosslessWriter(folder / "a.mkv") as writer:
        writer.write(np.random.default_rng(0).integers(0, 256, clip.shape, dtype=np.uint8))
    data = bytearray((folder / "a.mkv").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    (folder / "a.mkv").write_bytes(data)
    return folder / "a.mkv"


def floating_point(folder, clip):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "a.tif")
    return folder / "a.tif"


def pipe(folder, clip):
    os.mkfifo(folder / "a.mp4")
    return folder / "a.mp4"


CASES = [
    (missing, "no such file"),
    (empty, "empty"),
    (text, "not a video that can be read, or cut short"),
    (text_as_png, "not an image"),
    (cut_mkv, "cut short or damaged"),
    (cut_mp4, "cut short or damaged"),
    (cut_mp4_in_its_header, "cut short within its header"),
    (cut_png, "cut short or damaged"),
    (playlist, "not a video"),
    (folder_without_frames, "without image files"),
    (folder_of_two_sizes, "frame 2 is 32x16, the ones before are 32x32"),
    (folder_with_a_cut_frame, "00004.png: the image is cut short"),
    (wrong_bytes, "damaged .*CRC"),
    (floating_point, "floating-point"),
    (pipe, "not a regular file"),
]


@pytest.mark.parametrize("make, message", CASES, ids=[case[0].__name__ for case in CASES])
def test_bad_media_is_named_and_explained(tmp_path, disc, make, message):
    path = make(tmp_path, disc)
    with pytest.raises(DataError, match=message) as caught:
        read_rgba(path)
    assert path.name in str(caught.value)


def test_a_rewritten_file_is_probed_again(tmp_path, disc):
    path = tmp_path / "a.mkv"
    for length in (9, 4):
        with LosslessWriter(path) as writer:
            writer.write(disc[:length])
        assert probe(path).num_frames == length
