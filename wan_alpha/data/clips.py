"""The frames of one row: colour and matte read together as straight RGBA."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wan_alpha.data.manifest import Row
from wan_alpha.errors import DataError
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_frames, matte_from_rgb

# Mean spread of R, G and B above which a "matte" is a colour picture; chroma noise of lossy codecs stays far below.
_MATTE_SPREAD = 8.0


@dataclass(frozen=True)
class ClipInfo:
    """Size and length of a row's clip; a "static" row has one frame. `fps` is 0 where the file names none."""

    width: int
    height: int
    num_frames: int
    fps: float


def describe_clip(row: Row) -> ClipInfo:
    """Look at a row's files without decoding them.

    Raises:
        DataError: a file cannot be read, the two differ in size or length, or no alpha is there.
    """
    colour = probe(row.foreground)
    if row.matte is None:
        if not colour.has_alpha:
            raise DataError(
                f"{row.foreground}: no alpha plane ({colour.codec}, {colour.pix_fmt}) and no matte is named"
            )
    else:
        matte = probe(row.matte)
        if (colour.width, colour.height) != (matte.width, matte.height):
            sizes = f"{colour.width}x{colour.height}, its matte {row.matte.name} {matte.width}x{matte.height}"
            raise DataError(f"{row.foreground}: sizes differ: {sizes}")
        if colour.num_frames != matte.num_frames and row.kind != "static":
            counts = f"{colour.num_frames}, its matte {row.matte.name} {matte.num_frames}"
            raise DataError(f"{row.foreground}: frame counts differ: {counts}")
    return ClipInfo(colour.width, colour.height, 1 if row.kind == "static" else colour.num_frames, colour.fps)


def iter_clip(row: Row, start: int = 0, num_frames: int | None = None) -> Iterator[np.ndarray]:
    """Yield straight RGBA frames, (H, W, 4) uint8, one at a time.

    Raises:
        DataError: as describe_clip; or decoding fails, one stream ends early, or the matte is a colour picture.
    """
    info = describe_clip(row)
    if row.kind == "static":
        num_frames = 1
    if row.matte is None:
        yield from iter_frames(row.foreground, "rgba", start, num_frames)
        return
    colours = iter_frames(row.foreground, "rgb24", start, num_frames)
    mattes = iter_frames(row.matte, "rgb24", start, num_frames)
    first = True
    for colour in colours:
        matte = next(mattes, None)
        if matte is None:
            raise DataError(f"{row.matte}: ends before {row.foreground.name} does")
        if first:
            _check_grey(row, matte)
            first = False
        frame = np.empty((info.height, info.width, 4), np.uint8)
        frame[..., :3] = colour
        frame[..., 3] = matte_from_rgb(matte)
        yield frame
    if next(mattes, None) is not None:
        raise DataError(f"{row.foreground}: ends before {row.matte.name} does")


def read_clip(row: Row, start: int = 0, num_frames: int | None = None) -> np.ndarray:
    """The same frames as one array, (T, H, W, 4) uint8 straight RGBA. Errors as iter_clip."""
    info = describe_clip(row)
    expected = info.num_frames - start if num_frames is None else num_frames
    if start < 0 or expected < 1 or start + expected > info.num_frames:
        last = start + expected - 1
        raise DataError(f"{row.foreground}: frames {start} to {last} were asked for, the clip has {info.num_frames}")
    return read_frames(row, range(start, start + expected))


def read_frames(row: Row, indices: Sequence[int]) -> np.ndarray:
    """The frames of these ascending numbers, (len(indices), H, W, 4) uint8 straight RGBA; none between them is held.

    Raises:
        DataError: as iter_clip.
    """
    info = describe_clip(row)
    clip = np.empty((len(indices), info.height, info.width, 4), np.uint8)
    places = {index: place for place, index in enumerate(indices)}
    first, last = indices[0], indices[-1]
    for index, frame in enumerate(iter_clip(row, first, last - first + 1), first):
        if index in places:
            clip[places[index]] = frame
    return clip


def _check_grey(row: Row, matte: np.ndarray) -> None:
    spread = float((matte.max(axis=-1) - matte.min(axis=-1)).mean())
    if spread > _MATTE_SPREAD:
        raise DataError(
            f"{row.matte}: a matte is grey, this is a colour picture (R, G and B differ by {spread:.0f} of 255 on "
            "average); are colour and matte swapped?"
        )
