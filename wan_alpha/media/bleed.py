"""Colour carried outwards, to where nothing is known of it."""

import numpy as np
import torch
import torch.nn.functional as F

# Part of full alpha from which P / a is trusted as it is: its rounding error is then at most 8 levels of 255.
TRUSTED = 1 / 16


def bleed_outwards(premultiplied: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The colour of the nearest pixels that have one, for every pixel: a pyramid, averaged up and filled down.

    A pixel's own colour is kept where alpha is at least 1/16. Where the whole frame is clear the colour is 0.

    Args:
        premultiplied: (H, W, 3) float32 in [0, 1]; alpha: (H, W, 1) float32 in [0, 1].

    Returns:
        Straight colour, (H, W, 3) float32 in [0, 1].
    """
    trusted = alpha >= TRUSTED
    if not trusted.any():
        trusted = alpha > 0
    weights = np.where(trusted, alpha, 0.0)
    stack = np.concatenate([np.where(trusted, premultiplied, 0.0), weights], axis=-1, dtype=np.float32)
    levels = [torch.from_numpy(stack).permute(2, 0, 1)[None]]
    while max(levels[-1].shape[-2:]) > 1:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    filled = _straight(levels[-1])
    for level in reversed(levels[:-1]):
        coarse = F.interpolate(filled, level.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(level[:, 3:] > 0, _straight(level), coarse)
    return filled[0].permute(1, 2, 0).numpy()


def _straight(level: torch.Tensor) -> torch.Tensor:
    return (level[:, :3] / level[:, 3:].clamp(min=1e-8)).clamp(0.0, 1.0)
