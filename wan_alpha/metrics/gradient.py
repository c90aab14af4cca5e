"""Gradient error: edges that are softer, harder or elsewhere."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from wan_alpha.metrics.windows import correlate, differing_box, reached, row_strips, with_margin

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
    spans = slice(0, pred.shape[1]), slice(0, pred.shape[2])
    if torch.equal(*scales):
        # Equally stretched, equal surroundings have equal gradients.
        spans = zip(differing_box(pred, alpha), pred.shape[1:], strict=True)
        spans = [reached(span, reach, reach, length) for span, length in spans]
    error = pred.new_zeros(pred.shape)
    if all(span.start < span.stop for span in spans):
        padded = (F.pad(matte[:, None], (reach,) * 4, mode="replicate")[:, 0] for matte in (pred, alpha))
        box = slice(None), *(with_margin(span, len(BELL)) for span in spans)
        _fill(error[:, *spans], *(matte[box] for matte in padded), *scales)
    return error


def _fill(error: Tensor, pred: Tensor, alpha: Tensor, pred_scale: Tensor, scale: Tensor) -> None:
    for frames, rows in row_strips(pred, len(BELL)):
        mine, other = (matte[frames, with_margin(rows, len(BELL))] for matte in (pred, alpha))
        mine, other = _magnitude(mine).mul_(pred_scale[frames]), _magnitude(other).mul_(scale[frames])
        error[frames, rows] = mine.sub_(other).square_()


def _stretch(matte: Tensor) -> Tensor:
    """What a frame's gradient is multiplied by if its values are stretched to [0, 1]; 0 for a constant frame."""
    # Row by row, then down: in one go, or with aminmax, this takes ten times as long on a CPU.
    high, low = (reduce(reduce(matte, -1, True), -2, True) for reduce in (torch.amax, torch.amin))
    spread = high - low
    return spread.reciprocal().masked_fill_(spread == 0, 0.0)


def _magnitude(strip: Tensor) -> Tensor:
    bell, slope = correlate(strip, BELL, -2), correlate(strip, SLOPE, -2)
    across, down = correlate(bell, SLOPE, -1), correlate(slope, BELL, -1)
    return across.square_().addcmul_(down, down).sqrt_()
