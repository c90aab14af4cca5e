"""Where the subject shall stand: a Gaussian ellipse per latent frame, from a file or drawn."""

import torch
import torch.nn.functional as F

from wan_alpha.alpha.ellipse import Ellipse, gaussian
from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.weights.io import load_tensor

DRAWN = "ellipse:"


def read_placement(source, grid):
    """An ellipse mask on the latent grid.

    Args:
        source: path of a ``gauss_mask`` file (one tensor, latent frames x height x width, [0, 1]), resized to the grid;
            or "ellipse:cx,cy,rx,ry" or "ellipse:cx,cy,rx,ry,dx,dy" for :func:`draw_placement`.
        grid: (n+1, h, w).

    Returns:
        (n+1, h, w), float32, [0, 1].

    Raises:
        CheckpointError: a file that holds no such tensor.
        ConfigError: an ellipse that is not made of four or six numbers.
    """
    if not str(source).startswith(DRAWN):
        return resize_placement(_checked(load_tensor(source), source), grid)
    numbers = str(source).removeprefix(DRAWN).split(",")
    try:
        values = [float(number) for number in numbers]
    except ValueError as error:
        raise ConfigError(f"mask {source}: expected numbers after {DRAWN}, as in ellipse:0.5,0.5,0.2,0.3") from error
    if len(values) not in (4, 6) or min(values[2:4]) <= 0:
        raise ConfigError(f"mask {source}: expected ellipse:cx,cy,rx,ry or ...,dx,dy behind it, with rx, ry above 0")
    return draw_placement(grid, *values)


def draw_placement(grid, center_x, center_y, radius_x, radius_y, travel_x=0.0, travel_y=0.0):
    """One ellipse, standing or moving in a straight line.

    Args:
        grid: (n+1, h, w).
        center_x, center_y: where it starts; radius_x, radius_y: its half axes; travel_x, travel_y: how far it has moved
            in the last frame. Shares of the frame's width (x) and height (y); y grows downwards.

    Returns:
        (n+1, h, w), float32, [0, 1].
    """
    num_frames, height, width = grid
    frames = []
    for frame in range(num_frames):
        way = frame / max(1, num_frames - 1)
        # Cell centres lie on the integers: a share of 0 is the frame's edge, half a cell before the first centre.
        x = (center_x + way * travel_x) * width - 0.5
        y = (center_y + way * travel_y) * height - 0.5
        ellipse = Ellipse(x, y, radius_x * width, radius_y * height, 0.0)
        frames.append(torch.from_numpy(gaussian(ellipse, height, width)).float())
    return torch.stack(frames)


def resize_placement(mask, grid):
    """(frames, height, width) -> grid, bilinear over space; over time too where the number of frames differs."""
    if tuple(mask.shape) == tuple(grid):
        return mask
    return F.interpolate(mask[None, None], size=tuple(grid), mode="trilinear", align_corners=False)[0, 0]


def _checked(mask, path):
    shape = tuple(mask.shape)
    while mask.ndim > 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim != 3 or not mask.is_floating_point():
        raise CheckpointError(
            f"{path}: expected a float tensor, latent frames x height x width, found {mask.dtype} {shape}"
        )
    if not mask.isfinite().all() or mask.min() < 0 or mask.max() > 1:
        raise CheckpointError(f"{path}: expected values in [0, 1], found {mask.min():g} to {mask.max():g}")
    return mask.float()
