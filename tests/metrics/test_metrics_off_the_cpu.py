"""Metrics of clips on a device without float64: nothing is converted there."""

import pytest
import torch

from wan_alpha.metrics.clips import as_pair
from wan_alpha.metrics.coverage import coverage
from wan_alpha.metrics.matting import foreground_mad, foreground_mse


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


@pytest.mark.parametrize("measure", [foreground_mad, foreground_mse, lambda *clips: as_pair(*clips[:2])[0]])
def test_float64_is_made_on_the_cpu(measure):
    generator = torch.Generator().manual_seed(0)
    clips = [torch.rand(1, channels, 2, 4, 4, generator=generator) for channels in (3, 3, 1)]
    there = measure(*(clip.as_subclass(WithoutFloat64) for clip in clips))
    assert there.dtype == torch.float64 and torch.equal(there, measure(*clips))


def test_coverage_is_counted_on_the_cpu():
    alpha = torch.tensor([0.0, 0.5, 1.0, 1.0])
    assert coverage(alpha.as_subclass(WithoutFloat64)) == coverage(alpha)
