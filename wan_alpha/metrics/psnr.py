"""Peak signal-to-noise ratio."""

import math

from torch import Tensor

from wan_alpha.metrics.clips import as_pair, frame_sums


def decibels(mean_square: float) -> float:
    """PSNR in dB of a mean squared error against a peak of 1; infinity for 0, NaN for NaN."""
    return math.inf if mean_square == 0 else -10 * math.log10(mean_square)


def psnr(pred: Tensor, target: Tensor) -> float:
    """PSNR over the whole clip in dB: -10*log10(mean (p - q)^2), with 1 as the peak.

    Args:
        pred, target: (B, C, T, H, W), [0, 1].

    Returns:
        dB; infinity for equal clips.

    Raises:
        DataError: shapes differ.
    """
    pred, target = as_pair(pred, target)
    return decibels(frame_sums((pred - target).square_()).sum().item() / pred.numel())
