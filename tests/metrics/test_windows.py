"""Filters and windows made of shifted sums equal the plain ones."""

import pytest
import torch
import torch.nn.functional as F

from wan_alpha.metrics import windows
from wan_alpha.metrics.gradient import gradient_error
from wan_alpha.metrics.ssim import ssim_map


@pytest.fixture
def planes():
    return torch.rand(3, 23, 31, generator=torch.Generator().manual_seed(0))


def test_correlate_is_a_convolution(planes):
    taps = [0.5, -1.0, 0.25, 2.0]
    expected = F.conv2d(planes[:, None], torch.tensor(taps).view(1, 1, 1, -1))[:, 0]
    torch.testing.assert_close(windows.correlate(planes, taps, -1), expected)
    torch.testing.assert_close(windows.correlate(planes.mT, taps, -2), expected.mT)


@pytest.mark.parametrize("radius", [1, 2, 5, 7, 30])
def test_dilation_is_a_maximum(planes, radius):
    masks = planes > 0.99
    padded = F.pad(masks[:, None].float(), (radius,) * 4)
    expected = F.max_pool2d(padded, 2 * radius + 1, stride=1)[:, 0] > 0
    assert torch.equal(windows.dilate(masks, radius), expected)


@pytest.mark.parametrize("radius", [1, 2, 5, 7, 30])
def test_box_sums_are_sums(planes, radius):
    expected = F.avg_pool2d(F.pad(planes, (radius,) * 4)[:, None], 2 * radius + 1, stride=1, divisor_override=1)[:, 0]
    torch.testing.assert_close(windows.box_sums(planes, radius), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cache", [1, 100, 1000, 10**6])
def test_strips_cover_every_row_once(planes, cache, monkeypatch):
    monkeypatch.setattr(windows, "CACHE_PIXELS", cache)
    seen = torch.zeros(3, 23 - 4)
    for frames, rows in windows.row_strips(planes, 5):
        assert windows.with_margin(rows, 5).stop <= 23
        seen[frames, rows] += 1
    assert (seen == 1).all()


def test_the_differing_box_holds_every_difference(planes):
    changed = planes.clone()
    assert windows.differing_box(planes, changed) == (slice(0, 0), slice(0, 0))
    changed[1, 4, 20], changed[2, 9, 7] = 2, 2
    assert windows.differing_box(planes, changed) == (slice(4, 10), slice(7, 21))
    assert windows.reached(slice(4, 10), 5, 2, 11) == slice(0, 11)
    assert windows.reached(slice(0, 0), 5, 2, 11) == slice(0, 0)


@pytest.mark.parametrize("corner", [(0, 0), (0, 30), (22, 30), (11, 15)])
@pytest.mark.parametrize("compare", [ssim_map, gradient_error])
def test_what_is_left_out_would_not_have_changed(planes, corner, compare):
    """A single differing pixel, against planes that differ by a hair everywhere: nothing is left out there."""
    planes = planes / planes.amax()
    other = planes.clone()
    other[(slice(None), *corner)] = 0.5
    expected = compare(planes.double() + 1e-9, other.double())
    torch.testing.assert_close(compare(planes, other).double(), expected, rtol=1e-4, atol=1e-5)
