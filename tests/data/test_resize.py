"""Resizing in premultiplied space: the plain way, and the fast one that must agree with it."""

import numpy as np
import pytest
import torch

from wan_alpha.data.resize import resize_and_cut, resize_straight
from wan_alpha.media.stills import iter_rgba

LEVEL = 1.01 / 255


def fast_resize(frame, size, cut):
    """resize_and_cut's result in [0, 1]."""
    out = torch.full((4, *cut[2:]), torch.nan)
    resize_and_cut(frame, size, cut, out)
    return out / 255


@pytest.mark.parametrize("resize", ["plain", "fast"])
def test_hidden_colour_does_not_bleed_into_edges(resize):
    frame = np.zeros((32, 32, 4), np.uint8)
    frame[..., :3] = (0, 255, 0)  # green under the clear part
    frame[:, 16:] = (255, 0, 0, 255)
    if resize == "plain":
        resized = resize_straight(torch.from_numpy(frame), 19, 27)
    else:
        resized = fast_resize(frame, (19, 27), (0, 0, 19, 27))
    edge = (resized[3] > 0.01) & (resized[3] < 0.99)
    assert edge.any()
    assert (resized[0][edge] > 0.99).all() and (resized[1][edge] < 0.01).all()
    assert (resized[1][resized[3] == 0] > 0.99).all()  # and colour under clear pixels stays
    assert resized.min() >= 0 and resized.max() <= 1


def soft_noise(height, width, seed=0):
    """Colour noise under a soft disc: clear, semi-transparent and opaque pixels, each with any hidden colour."""
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2)
    frame[..., 3] = np.clip((min(height, width) / 3 - distance) * 60 + 128, 0, 255)
    return frame


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (80, 64), (200, 150), (9, 7), (97, 40)])
def test_the_fast_way_agrees_to_a_level(size):
    frame = soft_noise(80, 64)
    plain = resize_straight(torch.from_numpy(frame), *size)
    fast = fast_resize(frame, size, (0, 0, *size))
    part = fast_resize(frame, size, (2, 1, size[0] - 4, size[1] - 3))
    assert (part - fast[:, 2:-2, 1:-2]).abs().max() <= LEVEL
    assert (fast[3] - plain[3]).abs().max() <= LEVEL
    seen = (plain[3] > 0.5 / 255) & (fast[3] > 0)  # a pixel that comes out clear keeps its hidden colour
    assert seen.any() and (fast - plain).abs()[:3, seen].max() <= 2 * LEVEL  # noise of full contrast
    semi = (fast[3] > 0.01) & (fast[3] < 0.99)
    assert (fast - plain).abs()[:, semi].max() <= 1e-4 or size == (80, 64)


@pytest.mark.parametrize("alphas", [(255, 255), (253, 256), (200, 256)])
def test_visible_colour_of_noisy_opaque_mattes(alphas):
    """Noise in a matte as codecs leave it, or all of it opaque: smooth colour is within a level, any within two."""
    random = np.random.default_rng(0)
    frame = np.full((90, 120, 4), 255, np.uint8)
    frame[..., 3] = random.integers(alphas[0], alphas[1], (90, 120)) if alphas[0] < alphas[1] else 255
    y, x = np.mgrid[:90, :120]
    for colour, bound in ((np.stack([2 * x, 2 * y, x + y], axis=-1), 1), (random.integers(0, 256, (90, 120, 3)), 2)):
        frame[..., :3] = colour
        plain = resize_straight(torch.from_numpy(frame), 50, 70)
        assert (fast_resize(frame, (50, 70), (0, 0, 50, 70)) - plain).abs().max() <= bound * LEVEL


def test_planes_and_pixels_in_memory_are_resized_alike():
    frame = soft_noise(80, 64)
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    for size in ((37, 53), (80, 64)):
        cut = (3, 2, size[0] - 5, size[1] - 4)
        assert (fast_resize(planes, size, cut) - fast_resize(frame, size, cut)).abs().max() <= 1e-6


def test_fur_where_most_is_semi_transparent(lemur):
    frame = next(iter_rgba(lemur, [0]))[:200, :300]
    frame = np.ascontiguousarray(frame)
    frame[..., 3] = frame[..., 3] // 2 + 40  # nothing clear, nothing opaque
    plain = resize_straight(torch.from_numpy(frame), 90, 130)
    assert torch.allclose(fast_resize(frame, (90, 130), (5, 6, 80, 100)), plain[:, 5:85, 6:106], atol=1e-5)


def test_no_resize_is_exact():
    frame = soft_noise(16, 24)
    part = fast_resize(frame, (16, 24), (3, 4, 8, 9))
    assert np.array_equal((part * 255).round().permute(1, 2, 0).numpy(), frame[3:11, 4:13])
