"""Quality added up chunk by chunk is the clip's quality."""

import math

import pytest
import torch

from wan_alpha.errors import DataError
from wan_alpha.metrics.mae import mae_255
from wan_alpha.metrics.psnr import psnr
from wan_alpha.metrics.reconstruction import ReconstructionMeter
from wan_alpha.metrics.ssim import ssim


def clips(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, 5, 16, 16, generator=generator), torch.rand(1, 1, 5, 16, 16, generator=generator)


def test_chunks_add_up_to_the_whole_clip():
    (pred_rgb, pred_alpha), (rgb, alpha) = clips(0), clips(1)
    meter = ReconstructionMeter()
    for frames in (slice(0, 1), slice(1, 5)):
        meter.update(*(video[:, :, frames] for video in (pred_rgb, pred_alpha, rgb, alpha)))
    quality = meter.quality()
    for figures, pred, target in (
        (quality.alpha, pred_alpha, alpha),
        (quality.rgb, 0.5 + (pred_rgb - 0.5) * alpha, 0.5 + (rgb - 0.5) * alpha),
    ):
        assert figures.mae == pytest.approx(mae_255(pred, target), rel=1e-6)
        assert figures.psnr == pytest.approx(psnr(pred, target), rel=1e-6)
        assert figures.ssim == pytest.approx(ssim(pred, target), rel=1e-5)


def test_hidden_colour_does_not_count_and_equal_clips_are_perfect():
    rgb, alpha = clips(2)
    alpha = alpha.round()
    other = torch.where(alpha > 0, rgb, 1 - rgb)
    meter = ReconstructionMeter()
    meter.update(other, alpha, rgb, alpha)
    quality = meter.quality()
    assert quality.rgb.psnr == quality.alpha.psnr == math.inf
    assert quality.rgb.mae == 0 and quality.alpha.ssim == pytest.approx(1)


def test_nothing_counted_is_an_error():
    with pytest.raises(DataError, match="no frames"):
        ReconstructionMeter().quality()
