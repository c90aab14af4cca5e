"""A row's colour and alpha as two streams that may differ in length, alpha as reading gives it, colour as stored."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from wan_alpha.data.clips import alpha_source
from wan_alpha.data.manifest import Row
from wan_alpha.media.alpha_source import iter_source
from wan_alpha.media.matte_range import expand_limited, look_at_matte
from wan_alpha.media.read import iter_frames

Parts = Iterator[tuple[np.ndarray | None, np.ndarray | None]]


def is_expanded(row: Row) -> bool:
    """Whether reading stretches the row's matte from limited to full range; an alpha plane is taken as it is."""
    if row.matte is None and row.packing == "none":
        return False
    if row.matte_range != "auto":
        return row.matte_range == "limited"
    return look_at_matte(row.matte or row.foreground, row.packing).levels == "limited"


def iter_joined(row: Row) -> Parts:
    """(rgb, alpha) of each frame of a row whose alpha lies in its one file: (H, W, 3) and (H, W) uint8."""
    source = replace(alpha_source(row), source_state="straight")
    for frame in iter_source(source, 0, 1 if row.kind == "static" else None):
        yield np.ascontiguousarray(frame[..., :3]), np.ascontiguousarray(frame[..., 3])


def open_pair(row: Row, starts=(0, 0), num_frames: int | None = None) -> tuple[Iterator[np.ndarray], ...]:
    """The two streams of a pair, each from a frame of its own on: (H, W, 3) and (H, W) uint8."""
    colours = iter_frames(row.foreground, "rgb24", starts[0], num_frames)
    mattes = iter_frames(row.matte, "gray", starts[1], num_frames)
    return colours, (expand_limited(matte) for matte in mattes) if is_expanded(row) else mattes
