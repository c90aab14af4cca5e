"""The frames of one row: colour and matte read together as straight RGBA."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wan_alpha.data.manifest import Row
from wan_alpha.errors import DataError
from wan_alpha.media.alpha_source import AlphaSource, describe_source, iter_source_indices, read_source
from wan_alpha.media.timeline import Timeline


@dataclass(frozen=True)
class ClipInfo:
    """Size and length of a row's clip; a "static" row has one frame. `fps` is 0 where the file names none.

    `timeline`: when its frames are shown; None for stills and folders. `is_variable_rate`: they are not evenly spaced.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    is_variable_rate: bool = False
    timeline: Timeline | None = None


def describe_clip(row: Row) -> ClipInfo:
    """Look at a row's files without decoding them.

    Raises:
        DataError: a file cannot be read, the two differ in size or length, or no alpha is there.
    """
    is_static = row.kind == "static"
    info = describe_source(alpha_source(row), compare_lengths=not is_static)
    num_frames = 1 if is_static else info.num_frames
    return ClipInfo(info.width, info.height, num_frames, info.fps, info.is_variable_rate, info.timeline)


def alpha_source(row: Row) -> AlphaSource:
    """Where a row's colour and alpha are."""
    return AlphaSource(row.foreground, row.matte, row.packing, row.source_state, row.matte_range)


def iter_clip(row: Row, start: int = 0, num_frames: int | None = None, *, depth: int = 8) -> Iterator[np.ndarray]:
    """Yield straight RGBA frames, (H, W, 4) uint8 (uint16 with depth 16), one at a time.

    Raises:
        DataError: as describe_clip; or decoding fails, one stream ends early, or the matte is a colour picture.
    """
    yield from iter_source_indices(alpha_source(row), _range_of(row, start, num_frames), depth=depth)


def read_clip(row: Row, start: int = 0, num_frames: int | None = None, *, depth: int = 8) -> np.ndarray:
    """The same frames as one array, (T, H, W, 4) straight RGBA. Errors as iter_clip."""
    return read_frames(row, _range_of(row, start, num_frames), depth=depth)


def read_frames(row: Row, indices: Sequence[int], *, depth: int = 8) -> np.ndarray:
    """The frames of these ascending numbers, (len(indices), H, W, 4) straight RGBA; none between them is held.

    Raises:
        DataError: as iter_clip.
    """
    return read_source(alpha_source(row), indices, depth=depth)


def _range_of(row: Row, start: int, num_frames: int | None) -> range:
    info = describe_clip(row)
    expected = info.num_frames - start if num_frames is None else num_frames
    if start < 0 or expected < 1 or start + expected > info.num_frames:
        last = start + expected - 1
        raise DataError(f"{row.foreground}: frames {start} to {last} were asked for, the clip has {info.num_frames}")
    return range(start, start + expected)
