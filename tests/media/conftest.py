from pathlib import Path

import numpy as np
import pytest

import wan_alpha


def draw_disc(num_frames=9, height=32, width=32, soft=6.0):
    """A soft disc that moves over smooth colours: (T, H, W, 4) uint8 with clear, semi-transparent and opaque pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    clip = np.empty((num_frames, height, width, 4), np.uint8)
    for t in range(num_frames):
        distance = np.hypot(y - height / 2, x - width / 2 - 4 * np.sin(t / 3))
        clip[t, ..., 0] = x * 255 / width
        clip[t, ..., 1] = y * 255 / height
        clip[t, ..., 2] = 90 + 5 * t
        clip[t, ..., 3] = np.clip((height / 3 - distance) * 255 / soft + 128, 0, 255)
    return clip


@pytest.fixture
def disc():
    return draw_disc()


@pytest.fixture
def real_media():
    """Folder of the real files that the package ships."""
    return Path(wan_alpha.__file__).parent / "assets" / "media"


@pytest.fixture
def squirrel():
    return Path(__file__).parents[1] / "data" / "media" / "squirrel_alpha.gif"
