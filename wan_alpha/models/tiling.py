"""Large frames in overlapping tiles, blended with linear ramps."""

from dataclasses import dataclass

import torch

from wan_alpha.errors import ConfigError


@dataclass(frozen=True)
class Tiling:
    """Tile size and overlap in pixels, on the grid of a VAE's ``stride`` (8, or 16 for Wan2.2's).

    Raises:
        ConfigError: one is no multiple of the stride, or the overlap is wider than half a tile.
    """

    size: int = 256
    overlap: int = 64
    stride: int = 8

    def __post_init__(self):
        for name, value, least in (("size", self.size, self.stride), ("overlap", self.overlap, 0)):
            if value < least or value % self.stride:
                nearest = max(round(value / self.stride) * self.stride, least)
                raise ConfigError(
                    f"tile {name} {value} must be a multiple of the VAE's stride, {self.stride} pixels; "
                    f"the nearest is {nearest}"
                )
        if not 0 <= self.overlap <= self.size // 2:
            raise ConfigError(f"tile overlap {self.overlap} must lie between 0 and half the tile size {self.size}")


def _starts(length, size, overlap):
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def tile_windows(height, width, tiling):
    """(rows, columns) slices, in latent cells, that cover a frame of ``height`` x ``width`` of them."""
    size, overlap = tiling.size // tiling.stride, tiling.overlap // tiling.stride
    return [
        (slice(top, min(top + size, height)), slice(left, min(left + size, width)))
        for top in _starts(height, size, overlap)
        for left in _starts(width, size, overlap)
    ]


def _ramp(window, length, overlap):
    steps = torch.arange(window.stop - window.start, dtype=torch.float32)
    rising = ((steps + 1) / (overlap + 1)).clamp(max=1) if window.start > 0 and overlap else torch.ones_like(steps)
    falling = rising.new_ones(len(steps))
    if window.stop < length and overlap:
        falling = ((len(steps) - steps) / (overlap + 1)).clamp(max=1)
    return rising * falling


class TileBlender:
    """Accumulate tiles of (B, C, T, h, w) into one weighted mean, in float32 whatever the tiles are in."""

    def __init__(self, height, width, overlap):
        self.height, self.width, self.overlap = height, width, overlap
        self.total = self.weight = self.dtype = None

    def add(self, tile, rows, columns):
        if self.total is None:
            self.dtype = tile.dtype
            self.total = tile.new_zeros(*tile.shape[:3], self.height, self.width, dtype=torch.float32)
            self.weight = self.total.new_zeros(self.height, self.width)
        mask = torch.outer(_ramp(rows, self.height, self.overlap), _ramp(columns, self.width, self.overlap))
        mask = mask.to(tile.device)
        self.total[..., rows, columns] += tile * mask
        self.weight[rows, columns] += mask

    def result(self):
        """The blended frame, in the tiles' dtype."""
        return (self.total / self.weight).to(self.dtype)


def scaled(window, factor):
    """The same window on a grid ``factor`` times finer."""
    return slice(window.start * factor, window.stop * factor)
