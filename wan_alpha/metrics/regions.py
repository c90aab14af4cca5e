"""Where in a frame a figure is taken: the edge band, the semi-transparent and the opaque pixels of the reference."""

import torch
from torch import Tensor

from wan_alpha.metrics.coverage import TOLERANCE
from wan_alpha.metrics.windows import dilate

FRAME = "frame"
REGIONS = ("edge", "semi_transparent", "opaque")
"""The regions beside the whole frame. The edge band holds the semi-transparent pixels and what lies close to them."""


def edge_radius(height: int, width: int) -> int:
    """How far the edge band reaches, in pixels: 10 at 480 lines, and in proportion, at least 1."""
    return max(1, round(min(height, width) / 48))


def trimap(alpha: Tensor, radius: int | None = None, tolerance: float = TOLERANCE) -> Tensor:
    """What a trimap drawn around the reference says of every pixel.

    Known is what is opaque, or clear, in the whole square of `radius` pixels around; the rest, the edge band, is not.

    Args:
        alpha: (N, H, W), [0, 1].
        radius: pixels; None: `edge_radius`.
        tolerance: how far from 0 or 1 alpha may be and still count as clear or opaque.

    Returns:
        (N, H, W) int8: 0 known clear, 1 unknown, 2 known opaque.
    """
    near_something, near_lack = _neighbourhoods(alpha, radius, tolerance)
    return near_something.to(torch.int8) * 2 - (near_something & near_lack).to(torch.int8)


def _neighbourhoods(alpha, radius, tolerance):
    """Where something that is not clear is near, and something that is not opaque."""
    radius = edge_radius(*alpha.shape[1:]) if radius is None else radius
    return dilate(alpha > tolerance, radius), dilate(alpha < 1 - tolerance, radius)


def region_masks(alpha: Tensor, radius: int | None = None, tolerance: float = TOLERANCE) -> Tensor:
    """The frame and its REGIONS.

    Two partitions stand behind them: known clear, edge band, known opaque (of a trimap); clear, semi-transparent,
    opaque (of the pixels themselves).

    Args:
        alpha, radius, tolerance: as in `trimap`.

    Returns:
        (N, 1 + len(REGIONS), H, W) bool, the whole frame first.
    """
    opaque, semi = alpha >= 1 - tolerance, (alpha > tolerance) & (alpha < 1 - tolerance)
    near_something, near_lack = _neighbourhoods(alpha, radius, tolerance)
    band = near_something & near_lack
    return torch.stack([torch.ones_like(opaque), band, semi, opaque], dim=1)
