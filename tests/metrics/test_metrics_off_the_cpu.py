"""Metrics of clips on a device without float64: the work is done there, float64 is made on the CPU only."""

import pytest
import torch

from wan_alpha.metrics import matting
from wan_alpha.metrics.clips import as_pair
from wan_alpha.metrics.coverage import coverage
from wan_alpha.metrics.reference_meter import ReferenceMeter


class WithoutFloat64(torch.Tensor):
    """A tensor as on MPS: float64 cannot be made of it before ``.cpu()``."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu:
            return result.as_subclass(torch.Tensor)
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError("this device has no float64")
        return result


MATTE = (1, 1, 3, 16, 20)


def clips(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator) for shape in shapes]


def there(values):
    return [value.as_subclass(WithoutFloat64) for value in values]


@pytest.mark.parametrize("measure", [getattr(matting, name) for name in vars(matting) if name.startswith("alpha_")])
def test_mattes_are_compared_where_they_are(measure):
    pair = clips(MATTE, MATTE)
    figures = measure(*there(pair))
    assert figures.dtype == torch.float64 and torch.equal(figures, measure(*pair))


@pytest.mark.parametrize("measure", [matting.foreground_mad, matting.foreground_mse])
def test_colours_are_compared_where_they_are(measure):
    colors_and_alpha = clips((1, 3, 2, 4, 4), (1, 3, 2, 4, 4), (1, 1, 2, 4, 4))
    figures = measure(*there(colors_and_alpha))
    assert figures.dtype == torch.float64 and torch.equal(figures, measure(*colors_and_alpha))


def test_a_pair_stays_where_it_is():
    pair = as_pair(*there(clips(MATTE, MATTE)))
    assert all(type(clip) is WithoutFloat64 and clip.dtype == torch.float32 for clip in pair)
    double = as_pair(*(clip.double() for clip in clips(MATTE, MATTE)))
    assert all(clip.dtype == torch.float64 for clip in double)


def test_a_meter_counts_there():
    color = (1, 3, *MATTE[2:])
    inputs = clips(color, MATTE, color, MATTE)
    meters = [ReferenceMeter(), ReferenceMeter()]
    for meter, values in zip(meters, (there(inputs), inputs), strict=True):
        meter.update(*values)
    figures, expected = (meter.means() for meter in meters)
    assert figures["edge"]["mean"]["alpha_conn"] > 0
    torch.testing.assert_close(figures, expected, equal_nan=True)


def test_coverage_is_counted_on_the_cpu():
    alpha = torch.tensor([0.0, 0.5, 1.0, 1.0])
    assert coverage(alpha.as_subclass(WithoutFloat64)) == coverage(alpha)
