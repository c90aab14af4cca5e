"""Peak signal-to-noise ratio."""

import math

from torch import Tensor

from wan_alpha.metrics.clips import as_pair


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
    error = (pred - target).square().mean().item()
    return math.inf if error == 0 else -10 * math.log10(error)
