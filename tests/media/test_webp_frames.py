"""Animated WebP without Pillow's decoder: the same frames, in any order of reading, in the memory of one."""

import numpy as np
import pytest
from hard_clip import draw_hard_clip
from PIL import Image

from wan_alpha.errors import DataError
from wan_alpha.media import webp_frames
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_indices, read_rgba
from wan_alpha.media.webp import WebpWriter


def by_pillow(path):
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            yield np.array(image.convert("RGBA"))


def in_boxes(path, disc):
    """As this package writes: of each frame the box that changed."""
    with WebpWriter(path, 10, quality=None) as writer:
        writer.write(np.repeat(disc, 2, axis=0))


def lossy(path, _):
    with WebpWriter(path, 10) as writer:
        writer.write(draw_hard_clip())


def blended(path, disc):
    """As Pillow writes, whose frames may blend with those below."""
    first, *others = map(Image.fromarray, disc)
    first.save(path, save_all=True, append_images=others, duration=100, lossless=True, minimize_size=True)


@pytest.mark.parametrize("make", [in_boxes, lossy, blended])
def test_the_same_frames_as_pillows(tmp_path, disc, make):
    path = tmp_path / "clip.webp"
    make(path, disc)
    expected = np.stack(list(by_pillow(path)))
    info = probe(path)
    assert (info.num_frames, info.fps, info.has_alpha) == (len(expected), 10, True)
    assert np.array_equal(read_rgba(path), expected)
    for wanted in ([len(expected) - 1], [0, 3], [2, 3, 4]):
        assert np.array_equal(np.stack(list(iter_indices(path, wanted))), expected[wanted])
    if make is not blended:
        assert len(webp_frames.find_boxes(path).boxes) == len(expected)


def test_a_frame_with_wrong_bytes_is_an_error(tmp_path, disc):
    path = tmp_path / "clip.webp"
    in_boxes(path, disc)
    box = webp_frames.find_boxes(path).boxes[5]
    data = bytearray(path.read_bytes())
    data[box.place + 8 : box.place + box.length] = bytes(box.length - 8)
    path.write_bytes(data)
    with pytest.raises(DataError, match="clip.webp: a frame is cut short or damaged"):
        read_rgba(path)


@pytest.mark.parametrize("keep", [20, 29, 200, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_an_error(tmp_path, disc, keep):
    path = tmp_path / "clip.webp"
    in_boxes(path, disc)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(DataError, match="clip.webp: not (a readable|an) image"):
        read_rgba(path)
