from pathlib import Path

import numpy as np
import pytest

import wan_alpha
from wan_alpha.media.write import LosslessWriter


def draw_clip(num_frames=9, height=32, width=32):
    """Smooth colours under a soft disc that moves, (T, H, W, 4) uint8; blue is 20 * t, which tells frames apart."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    clip = np.empty((num_frames, height, width, 4), np.uint8)
    for t in range(num_frames):
        distance = np.hypot(y - height / 2, x - width / 2 - 3 * np.sin(t))
        clip[t, ..., 0] = x * 255 / width
        clip[t, ..., 1] = y * 255 / height
        clip[t, ..., 2] = min(20 * t, 255)
        clip[t, ..., 3] = np.clip((height / 3 - distance) * 40 + 128, 0, 255)
    return clip


@pytest.fixture
def clip():
    return draw_clip()


@pytest.fixture
def write_pair():
    """write_pair(folder, name, clip) -> paths of a bit-exact NAME_rgb.mkv and NAME_alpha.mkv."""

    def write(folder, name, clip):
        paths = folder / f"{name}_rgb.mkv", folder / f"{name}_alpha.mkv"
        for path, stream in zip(paths, ("rgb", "matte"), strict=True):
            with LosslessWriter(path, 16, stream) as writer:
                writer.write(clip)
        return paths

    return write


@pytest.fixture
def lemur():
    return Path(wan_alpha.__file__).parent / "assets" / "media" / "lemur_cutout.png"
