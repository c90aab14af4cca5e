"""One clip wherever its alpha is: in the file, in a matte beside it, or in the other half of the picture."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media import packed
from wan_alpha.media.matte_range import MATTE_RANGES, expand_limited, look_at_matte
from wan_alpha.media.premultiplied import SOURCE_STATES, unpremultiply
from wan_alpha.media.probe import MediaInfo, probe
from wan_alpha.media.read import find_state, iter_indices
from wan_alpha.media.state_verdict import StateVerdict, judge_state

# Mean spread of R, G and B above which a "matte" is a colour picture; chroma noise of lossy codecs stays far below.
_MATTE_SPREAD = 8.0
# Frames that a verdict on a pair or a packed clip is made from.
_JUDGED_FRAMES = 5


@dataclass(frozen=True)
class AlphaSource:
    """Where a clip's colour and alpha are, and what state the colour is in.

    Args:
        foreground: the colour file, or the one file that has both.
        matte: the alpha video, None where `foreground` carries alpha itself.
        packing: one of packed.PACKINGS; "none" unless the matte lies in another half of foreground's frames.
        source_state: "straight", "premultiplied" or "auto" (judged from the frames).
        matte_range: "full" (0..255), "limited" (16..235, expanded) or "auto" (judged from the frames); of a matte that
            is a picture, that is a file of its own or a packed half.

    Raises:
        ConfigError: unknown value, or a matte and a packing together.
    """

    foreground: Path
    matte: Path | None = None
    packing: str = "none"
    source_state: str = "straight"
    matte_range: str = "auto"

    def __post_init__(self):
        choices = {"packing": packed.PACKINGS, "source_state": SOURCE_STATES, "matte_range": MATTE_RANGES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} = {getattr(self, name)!r} is not one of {', '.join(known)}")
        if self.matte is not None and self.packing != "none":
            raise ConfigError(
                f"{self.foreground}: alpha is either in a matte file or packed ({self.packing}), not both"
            )


def describe_source(source: AlphaSource, *, compare_lengths: bool = True) -> MediaInfo:
    """The clip as it will be read: the foreground's MediaInfo with the size of the joined frames, has_alpha True.

    Args:
        compare_lengths: a matte of another length is an error; False where only its first frame is wanted.

    Raises:
        DataError: a file cannot be read, the two differ in size or length, or no alpha is there.
    """
    info = probe(source.foreground)
    if source.packing != "none":
        try:
            width, height = packed.unpacked_size(info.width, info.height, source.packing)
        except DataError as error:
            raise DataError(f"{source.foreground}: {error}") from error
        return replace(info, width=width, height=height, has_alpha=True)
    if source.matte is None:
        if not info.has_alpha:
            raise DataError(f"{source.foreground}: no alpha plane ({info.codec}, {info.pix_fmt}) and no matte is named")
        return info
    matte = probe(source.matte)
    if (info.width, info.height) != (matte.width, matte.height):
        sizes = f"{info.width}x{info.height}, its matte {source.matte.name} {matte.width}x{matte.height}"
        raise DataError(f"{source.foreground}: sizes differ: {sizes}")
    if compare_lengths and info.num_frames != matte.num_frames:
        counts = f"{info.num_frames}, its matte {source.matte.name} {matte.num_frames}"
        raise DataError(f"{source.foreground}: frame counts differ: {counts}")
    return replace(info, has_alpha=True)


def iter_source(
    source: AlphaSource, start: int = 0, num_frames: int | None = None, *, depth: int = 8
) -> Iterator[np.ndarray]:
    """Yield straight RGBA frames, (H, W, 4) uint8 or uint16 by `depth`; only the current one is held.

    Raises:
        DataError: as describe_source; or decoding fails, one stream ends early, or the matte is a colour picture.
    """
    info = describe_source(source)
    stop = info.num_frames if num_frames is None else start + num_frames
    if not 0 <= start < stop <= info.num_frames:
        raise DataError(
            f"{source.foreground}: frames {start} to {stop - 1} were asked for, the clip has {info.num_frames}"
        )
    yield from iter_source_indices(source, range(start, stop), depth=depth)


def iter_source_indices(source: AlphaSource, indices: Sequence[int], *, depth: int = 8) -> Iterator[np.ndarray]:
    """Yield the straight RGBA frames of these ascending numbers. Otherwise as iter_source."""
    frames = _iter_stored(source, indices, depth)
    is_joined = source.matte is not None or source.packing != "none"
    if is_joined and find_source_state(source) == "premultiplied":
        frames = (unpremultiply(frame) for frame in frames)  # those of a single file are made straight by the reader
    yield from frames


def read_source(source: AlphaSource, indices: Sequence[int] | None = None, *, depth: int = 8) -> np.ndarray:
    """The frames of these ascending numbers (None: all), (T, H, W, 4) uint8 or uint16. Errors as iter_source."""
    indices = range(describe_source(source).num_frames) if indices is None else indices
    clip = None
    for place, frame in enumerate(iter_source_indices(source, indices, depth=depth)):
        if clip is None:
            clip = _empty_clip(len(indices), frame)
        clip[place] = frame
    return clip


def _empty_clip(num_frames: int, frame: np.ndarray) -> np.ndarray:
    """(num_frames, H, W, 4), in memory as `frame` is: by planes or by pixels; to copy one to the other takes time."""
    height, width, channels = frame.shape
    if frame.strides[2] > frame.strides[1]:
        return np.empty((num_frames, channels, height, width), frame.dtype).transpose(0, 2, 3, 1)
    return np.empty((num_frames, height, width, channels), frame.dtype)


def find_source_state(source: AlphaSource) -> str:
    """ "straight", "premultiplied" or "unknown": as declared, or for "auto" as judged from frames of the clip."""
    return source.source_state if source.source_state != "auto" else judge_source(source).state


def judge_source(source: AlphaSource) -> StateVerdict:
    """The verdict on the colour as stored, whatever state is declared; see state_verdict.judge_state."""
    if source.matte is None and source.packing == "none":
        return find_state(source.foreground)
    info = describe_source(source, compare_lengths=False)
    files = [source.foreground] if source.matte is None else [source.foreground, source.matte]
    return _judge(replace(source, source_state="straight"), info.num_frames, tuple(p.stat().st_mtime_ns for p in files))


@lru_cache(maxsize=4096)
def _judge(source: AlphaSource, num_frames: int, changed: tuple[int, ...]) -> StateVerdict:
    indices = sorted({round(place) for place in np.linspace(0, num_frames - 1, _JUDGED_FRAMES)})
    return judge_state(_iter_stored(source, indices, 8))


def matte_levels(source: AlphaSource) -> str:
    """ "full" or "limited": as declared, or for "auto" as judged; "full" where alpha is a plane of the file.

    Raises:
        DataError: the matte is a colour picture.
    """
    if source.matte is None and source.packing == "none":
        return "full"
    path = source.foreground if source.matte is None else source.matte
    evidence = look_at_matte(path, source.packing)
    if evidence.spread > _MATTE_SPREAD:
        raise DataError(
            f"{path}: a matte is grey, this is a colour picture (R, G and B differ by {evidence.spread:.0f} of 255 on "
            "average); are colour and matte swapped?"
        )
    return evidence.levels if source.matte_range == "auto" else source.matte_range


def _iter_stored(source: AlphaSource, indices: Sequence[int], depth: int) -> Iterator[np.ndarray]:
    """Joined RGBA frames; those of a single file straight, all others in the state they are stored in."""
    describe_source(source, compare_lengths=len(indices) > 1 or indices[0] > 0)
    if source.packing != "none":
        return _iter_packed(source, indices, depth)
    if source.matte is not None:
        return _iter_pair(source, indices, depth)
    return iter_indices(source.foreground, indices, source_state=source.source_state, depth=depth)


def _iter_packed(source: AlphaSource, indices: Sequence[int], depth: int) -> Iterator[np.ndarray]:
    is_limited = matte_levels(source) == "limited"
    for frame in iter_indices(source.foreground, indices, "rgb+gray", depth=depth):
        joined = packed.unpack(frame, source.packing)
        if is_limited:
            joined[..., 3] = expand_limited(joined[..., 3])
        yield joined


def _iter_pair(source: AlphaSource, indices: Sequence[int], depth: int) -> Iterator[np.ndarray]:
    is_limited = matte_levels(source) == "limited"
    # As RGBA, so that the matte only has to be written into each frame.
    colours = iter_indices(source.foreground, indices, "rgba", depth=depth)
    mattes = iter_indices(source.matte, indices, "gray", depth=depth)
    with ThreadPoolExecutor(1) as pool:  # both streams are decoded at once, the matte at most a frame ahead
        coming = pool.submit(next, mattes, None)
        for frame in colours:
            matte = coming.result()
            if matte is None:
                return
            coming = pool.submit(next, mattes, None)
            frame = frame if frame.flags.writeable else frame.copy()
            frame[..., 3] = expand_limited(matte) if is_limited else matte
            yield frame
        coming.result()
