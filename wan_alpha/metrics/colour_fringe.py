"""Colour fringe: a background that stayed in the edge's colour."""

import torch
from torch import Tensor

from wan_alpha.alpha.composite import BACKGROUND_COLOR_NAMES, background_color
from wan_alpha.metrics.clips import exact
from wan_alpha.metrics.coverage import TOLERANCE
from wan_alpha.metrics.regions import edge_radius
from wan_alpha.metrics.windows import box_sums

BACKGROUNDS = (*BACKGROUND_COLOR_NAMES, "grey")
# A part below this is rounding: no background is named for it.
NOTICEABLE = 0.01


def fringe_sums(rgb: Tensor, alpha: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """What is needed to say how much of which background is left in the colour of the edge.

    Beside an edge pixel of colour F and alpha a, the mean colour G of the opaque pixels near by is what the edge should
    have. A straight colour that was not freed from its background B is

        F = G + k (1 - a)(B - G),     k = 0: clean;  k = 1: the composite itself, never unmixed,

    and k is the least-squares fit over all edge pixels. Pixels without an opaque one near by do not count.

    Args:
        rgb: straight colour, (B, 3, T, H, W), [0, 1]; alpha: (B, 1, T, H, W), [0, 1].
        tolerance: how far from 0 or 1 alpha may be and still count as clear or opaque.

    Returns:
        (3, len(BACKGROUNDS), B, T), float64 on the CPU: sums over pixels and channels of r d, of d^2 and of r^2, where
        r = F - G and d = (1 - a)(B - G).
    """
    opaque = (alpha >= 1 - tolerance).to(rgb.dtype)
    radius = 2 * edge_radius(*alpha.shape[-2:])
    num_near = box_sums(opaque, radius)
    inner = box_sums(rgb * opaque, radius) / num_near.clamp(min=1)
    edge = (alpha > tolerance) & (alpha < 1 - tolerance) & (num_near > 0)
    residual = (rgb - inner).mul_(edge)
    weight = (1 - alpha).mul_(edge)
    squared = residual.square().sum(dim=(1, 3, 4))
    sums = []
    for name in BACKGROUNDS:
        color = torch.tensor(background_color(name), dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1, 1)
        direction = (color / 2 + 0.5 - inner).mul_(weight)
        product, square = (residual * direction).sum(dim=(1, 3, 4)), direction.square_().sum(dim=(1, 3, 4))
        sums.append(torch.stack([product, square, squared]))
    return exact(torch.stack(sums, dim=1))


def colour_fringe(sums: Tensor) -> tuple[float, str | None]:
    """The part k of a background that is left in the edge, and which background explains the edge best.

    Args:
        sums: (3, len(BACKGROUNDS)), `fringe_sums` of one clip, added up.

    Returns:
        k in [0, 1] times the share of the edge's colour error that the background explains, so that a colour which
        varies for other reasons counts little; and the background's name, None where that is below NOTICEABLE. NaN and
        None where no edge could be judged.
    """
    product, square, squared = sums
    if not square.max() > 0:
        return float("nan"), None
    # A fit can only take colour towards the background, not away from it.
    parts = (product / square.clamp(min=1e-12)).clamp(0, 1)
    explained = parts * (2 * product - parts * square) / squared.clamp(min=1e-12)
    best = int(explained.argmax())
    amount = (parts[best] * explained[best]).item()
    return amount, BACKGROUNDS[best] if amount >= NOTICEABLE else None
