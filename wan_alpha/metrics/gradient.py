"""Gradient error: edges that are softer, harder or elsewhere."""

import math

import torch.nn.functional as F
from torch import Tensor

from wan_alpha.metrics.windows import correlate, row_strips, with_margin

SIGMA = 1.4
# The Gaussian is cut where it falls below this value.
CUTOFF = 1e-2


def _taps() -> tuple[list[float], list[float]]:
    """A Gaussian and its derivative, both of unit energy: their product is the two-dimensional filter."""
    peak = math.sqrt(2 * math.pi) * SIGMA
    reach = math.ceil(SIGMA * math.sqrt(-2 * math.log(peak * CUTOFF)))
    offsets = range(-reach, reach + 1)
    bell = [math.exp(-0.5 * (offset / SIGMA) ** 2) for offset in offsets]
    slope = [offset * value for offset, value in zip(offsets, bell, strict=True)]
    return tuple([tap / math.hypot(*taps) for tap in taps] for taps in (bell, slope))


BELL, SLOPE = _taps()


def gradient_error(pred: Tensor, alpha: Tensor) -> Tensor:
    """Every pixel's gradient error (Rhemann et al. 2009): the squared difference of two gradient magnitudes.

    Gradients are those of first-order Gaussian derivative filters, sigma 1.4, of mattes stretched to [0, 1] frame by
    frame; the rim is repeated outwards.

    Args:
        pred, alpha: (N, H, W), [0, 1].

    Returns:
        (N, H, W).
    """
    reach = len(BELL) // 2
    scales = [_stretch(matte) for matte in (pred, alpha)]
    padded = [F.pad(matte[:, None], (reach,) * 4, mode="replicate")[:, 0] for matte in (pred, alpha)]
    error = pred.new_empty(pred.shape)
    for frames, rows in row_strips(padded[0], len(BELL)):
        strips = (matte[frames, with_margin(rows, len(BELL))] for matte in padded)
        mine, other = (_magnitude(strip).mul_(scale[frames]) for strip, scale in zip(strips, scales, strict=True))
        error[frames, rows] = mine.sub_(other).square_()
    return error


def _stretch(matte: Tensor) -> Tensor:
    """What a frame's gradient is multiplied by if its values are stretched to [0, 1]; 0 for a constant frame."""
    low, high = matte.aminmax(dim=-1, keepdim=True)
    spread = high.amax(dim=-2, keepdim=True) - low.amin(dim=-2, keepdim=True)
    return spread.reciprocal().masked_fill_(spread == 0, 0.0)


def _magnitude(strip: Tensor) -> Tensor:
    bell, slope = correlate(strip, BELL, -2), correlate(strip, SLOPE, -2)
    across, down = correlate(bell, SLOPE, -1), correlate(slope, BELL, -1)
    return across.square_().addcmul_(down, down).sqrt_()
