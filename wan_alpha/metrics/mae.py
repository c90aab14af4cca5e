"""Mean absolute error in 8-bit levels, and what it means for a reconstruction."""

from typing import Literal

from torch import Tensor

from wan_alpha.metrics.clips import as_pair, frame_sums

Verdict = Literal["excellent", "good", "poor"]

# Stream -> (excellent below, good below), in levels of 255.
MAE_BARS = {"rgb": (10.0, 20.0), "alpha": (5.0, 15.0)}


def mae_255(pred: Tensor, target: Tensor) -> float:
    """Mean absolute error in levels: 255 * mean |p - q|.

    Args:
        pred, target: (B, C, T, H, W), [0, 1].

    Raises:
        DataError: shapes differ.
    """
    pred, target = as_pair(pred, target)
    return 255 * frame_sums((pred - target).abs_()).sum().item() / pred.numel()


def mae_verdict(stream: Literal["rgb", "alpha"], mae: float) -> Verdict:
    """Judge a reconstruction by its mean absolute error in levels, by MAE_BARS; a bar itself is not passed."""
    excellent, good = MAE_BARS[stream]
    if mae < excellent:
        return "excellent"
    return "good" if mae < good else "poor"
