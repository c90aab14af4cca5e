"""PNGs of our own making, read back by Pillow and, at 16 bits, by ffmpeg."""

import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from wan_alpha.media import ffmpeg
from wan_alpha.media.png_codec import encode_png


def noise(dtype, channels=4, size=(13, 7)):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (*size, channels), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("level", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_eight_bits_are_exact(channels, level):
    image = noise(np.uint8, channels)
    back = np.asarray(Image.open(io.BytesIO(encode_png(image, level=level))))
    assert np.array_equal(back.reshape(image.shape), image)


def test_sixteen_bits_are_exact(tmp_path):
    image = noise(np.uint16)
    (tmp_path / "a.png").write_bytes(encode_png(image))
    command = [ffmpeg.executable(), "-v", "error", "-i", str(tmp_path / "a.png"), "-f", "rawvideo"]
    done = subprocess.run([*command, "-pix_fmt", "rgba64be", "pipe:1"], capture_output=True, check=True)
    assert np.array_equal(np.frombuffer(done.stdout, ">u2").reshape(image.shape), image)


def test_texts_come_back_whatever_they_hold():
    texts = {"prompt": "a red ball, «ça» 猫\nsecond line", "settings": '{"seed": 3}', "odd": "a\0b"}
    image = Image.open(io.BytesIO(encode_png(noise(np.uint8), texts)))
    assert image.text == texts | {"odd": "a b"}


def test_colour_under_zero_alpha_is_kept():
    image = np.array([[[1, 2, 3, 0]]], np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(image)))), image)
