"""How wide edges are: sharp, soft, or a haze."""

import torch
from torch import Tensor

from wan_alpha.metrics.clips import exact

LEVEL = 0.5


def edge_slopes(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """How steep alpha is where it crosses one half.

    Between every four neighbouring pixels alpha is taken as a plane; where the four lie on both sides of one half, the
    plane's slope counts. An edge's width in pixels is the number of crossings over the sum of their slopes: 1 for a
    hard straight edge, up to 1.6 where pixels make stairs of it, w for a ramp of w pixels.

    Args:
        alpha: (B, 1, T, H, W), [0, 1].

    Returns:
        per frame, (B, T) float64 on the CPU each: the sum of slopes (per pixel), and the number of crossings.
    """
    a = alpha[:, 0]
    top_left, top_right, low_left, low_right = a[..., :-1, :-1], a[..., :-1, 1:], a[..., 1:, :-1], a[..., 1:, 1:]
    across = (top_right - top_left + low_right - low_left) / 2
    down = (low_left - top_left + low_right - top_right) / 2
    above = a >= LEVEL
    corners = above[..., :-1, :-1], above[..., :-1, 1:], above[..., 1:, :-1], above[..., 1:, 1:]
    some = corners[0] | corners[1] | corners[2] | corners[3]
    crosses = some & ~(corners[0] & corners[1] & corners[2] & corners[3])
    slope = torch.where(crosses, (across.square() + down.square()).sqrt(), 0.0)
    return exact(slope.sum(dim=(-2, -1))), exact(crosses.sum(dim=(-2, -1)))
