"""Flicker: alpha that comes and goes where nothing moves."""

import torch
from torch import Tensor

from wan_alpha.metrics.clips import exact
from wan_alpha.metrics.coverage import TOLERANCE
from wan_alpha.metrics.windows import dilate

# Alpha from which a pixel's colour is seen well enough to tell motion from noise, and the change that is motion.
VISIBLE = 0.1
MOTION = 0.1
# Pixels around a moving one that count as moving.
MOTION_REACH = 2


def flicker(rgb: Tensor, alpha: Tensor, tolerance: float = TOLERANCE) -> tuple[Tensor, Tensor]:
    """How much alpha departs from the frames before and after it, at pixels that do not move.

        departure = |a_t - median(a_(t-1), a_t, a_(t+1))|

    An edge that passes changes alpha in one direction and departs by nothing, however fast and hard it is; what goes
    and comes back departs in full (so does a thing that is thin enough to cross a pixel within one frame). Left out are
    pixels that are clear in all three frames, and pixels near which the visible colour changes from the frame before to
    the frame after: there something moves.

    Args:
        rgb: straight colour, (B, 3, T, H, W), [0, 1]; alpha: (B, 1, T, H, W), [0, 1]; T at least 3.
        tolerance: largest alpha that counts as clear.

    Returns:
        per inner frame, (B, T - 2) float64 on the CPU each: the sum of departures, and the number of pixels counted.
    """
    before, now, after = alpha[:, 0, :-2], alpha[:, 0, 1:-1], alpha[:, 0, 2:]
    low, high = torch.minimum(before, after), torch.maximum(before, after)
    departure = (now - now.clamp(low, high)).abs_()
    change = (rgb[:, :, 2:] - rgb[:, :, :-2]).abs_().mean(dim=1)
    moves = (change > MOTION) & (low > VISIBLE)
    moves = dilate(moves.flatten(0, 1), MOTION_REACH).view(moves.shape)
    counts = (torch.maximum(high, now) > tolerance) & ~moves
    departure.mul_(counts.to(departure.dtype))
    return exact(departure.sum(dim=(-2, -1))), exact(counts.sum(dim=(-2, -1)))
