"""Frames out of files. A frame number always means the n-th stored frame, whatever the frame rate does."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media import stills
from wan_alpha.media.decode import decode
from wan_alpha.media.premultiplied import SOURCE_STATES, unpremultiply
from wan_alpha.media.probe import MediaInfo, probe
from wan_alpha.media.raw_frames import CHANNELS, matte_from_rgb, with_gray
from wan_alpha.media.state_verdict import StateVerdict, judge_state

# Frames that a verdict on a file is made from.
_JUDGED_FRAMES = 5


def iter_frames(
    path,
    pix_fmt: str = "rgba",
    start: int = 0,
    num_frames: int | None = None,
    *,
    source_state: str = "straight",
    depth: int = 8,
) -> Iterator[np.ndarray]:
    """Yield frames one by one; nothing but the current one is held.

    Decoding starts at the keyframe before `start` where the container allows it, and stops after the last wanted frame.

    Args:
        path: video, still, animation or folder of frames.
        pix_fmt: "rgba", straight, alpha 255 where the file has none; "rgb24", the straight colour alone; or "gray", the
            picture as a matte: the mean of R, G and B, of a YUV video its luma; limited range (16..235) is expanded.
            "rgb+gray": colour and matte, for pictures that hold both.
        start: first frame, counted from 0.
        num_frames: how many; None for all that follow.
        source_state: what the file holds: "straight", "premultiplied" (made straight, colour bled outwards under clear
            pixels) or "auto" (judged from the file's own frames, see find_state).
        depth: 8 for uint8; 16 for uint16, full scale 65535, which keeps 10, 12 and 16 bits.

    Yields:
        (H, W, 4), (H, W, 3) or (H, W), uint8 or uint16.

    Raises:
        ConfigError: an unknown pix_fmt, source_state or depth.
        DataError: the file cannot be read, is damaged where it was read, or holds fewer frames than asked for. Codecs
            without checksums (h264) can decode wrong bytes to a wrong picture that nothing shows.
    """
    info = probe(path)
    _check_range(info, start, num_frames)
    stop = info.num_frames if num_frames is None else start + num_frames
    yield from iter_indices(path, range(start, stop), pix_fmt, source_state=source_state, depth=depth)


def iter_indices(
    path, indices: Sequence[int], pix_fmt: str = "rgba", *, source_state: str = "straight", depth: int = 8
) -> Iterator[np.ndarray]:
    """Yield the frames of these ascending numbers; gaps are skipped by keyframes where that is cheaper.

    Otherwise as iter_frames.
    """
    _check_options(pix_fmt, source_state, depth)
    info = probe(path)
    if not len(indices) or indices[0] < 0 or any(a >= b for a, b in pairwise(indices)):
        raise ConfigError(f"{path}: frame numbers must be ascending and at least one: {list(indices)[:8]}")
    if indices[-1] >= info.num_frames:
        raise DataError(f"{path}: frame {indices[-1]} was asked for, the file has {info.num_frames}")
    is_premultiplied = source_state == "premultiplied" or (
        source_state == "auto" and find_state(path).state == "premultiplied"
    )
    if is_premultiplied and info.has_alpha and "gray" not in pix_fmt:
        channels = CHANNELS[pix_fmt]
        frames = (unpremultiply(frame)[..., :channels] for frame in _iter_stored(info, indices, "rgba", depth))
    else:
        frames = _iter_stored(info, indices, pix_fmt, depth)
    delivered = 0
    for frame in frames:
        delivered += 1
        yield frame
    if delivered < len(indices):
        wanted = f"{len(indices)} frames from frame {indices[0]} on"
        raise DataError(f"{path}: {wanted} were asked for, {delivered} could be decoded")


def read_rgba(
    path, start: int = 0, num_frames: int | None = None, *, source_state: str = "straight", depth: int = 8
) -> np.ndarray:
    """Straight RGBA frames, (T, H, W, 4) uint8 (or uint16, by `depth`); alpha is 255 (65535) where the file has none.

    Arguments and errors: iter_frames.
    """
    return _collect(path, "rgba", start, num_frames, source_state, depth)


def read_rgb(
    path, start: int = 0, num_frames: int | None = None, *, source_state: str = "straight", depth: int = 8
) -> np.ndarray:
    """Straight colour, (T, H, W, 3); an alpha plane is left out, not composited. Otherwise as iter_frames."""
    return _collect(path, "rgb24", start, num_frames, source_state, depth)


def read_matte(path, start: int = 0, num_frames: int | None = None, *, depth: int = 8) -> np.ndarray:
    """Alpha from a grey or RGB matte, (T, H, W) uint8 or uint16, full range. Otherwise as iter_frames with "gray"."""
    return _collect(path, "gray", start, num_frames, "straight", depth)


def find_state(path) -> StateVerdict:
    """Whether a file with alpha is straight or premultiplied, by frames spread over it; see judge_state."""
    info = probe(path)
    return _find_state(Path(path), info.num_frames, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _find_state(path: Path, num_frames: int, mtime_ns: int) -> StateVerdict:
    wanted = sorted({round(place) for place in np.linspace(0, num_frames - 1, _JUDGED_FRAMES)})
    return judge_state(iter_indices(path, wanted))


def _iter_stored(info: MediaInfo, indices: Sequence[int], layout: str, depth: int) -> Iterator[np.ndarray]:
    if not info.is_image:
        yield from decode(info, layout, depth, indices)
        return
    channels = CHANNELS[layout]
    for frame in stills.iter_rgba(info.path, indices, depth=depth):
        if layout == "gray":
            yield matte_from_rgb(frame[..., :3])
        elif layout == "rgb+gray":
            yield with_gray(frame[..., :3])
        else:
            yield frame[..., :channels]


def _collect(path, pix_fmt: str, start: int, num_frames: int | None, source_state: str, depth: int) -> np.ndarray:
    info = probe(path)
    _check_range(info, start, num_frames)
    count = info.num_frames - start if num_frames is None else num_frames
    shape = (info.height, info.width) if pix_fmt == "gray" else (info.height, info.width, CHANNELS[pix_fmt])
    clip = np.empty((count, *shape), np.uint8 if depth == 8 else np.uint16)
    frames = iter_frames(path, pix_fmt, start, num_frames, source_state=source_state, depth=depth)
    for place, frame in enumerate(frames):
        clip[place] = frame
    return clip


def _check_options(pix_fmt: str, source_state: str, depth: int) -> None:
    if pix_fmt not in CHANNELS:
        raise ConfigError(f"pix_fmt = {pix_fmt!r} is not one of {', '.join(CHANNELS)}")
    if source_state not in SOURCE_STATES:
        raise ConfigError(f"source_state = {source_state!r} is not one of {', '.join(SOURCE_STATES)}")
    if depth not in (8, 16):
        raise ConfigError(f"depth = {depth} is not 8 or 16 bits")


def _check_range(info: MediaInfo, start: int, num_frames: int | None) -> None:
    if start < 0 or (num_frames is not None and num_frames < 1):
        raise DataError(f"{info.path}: start {start} must be >= 0 and num_frames {num_frames} >= 1")
    if start + (num_frames or 1) > info.num_frames:
        last = start + (num_frames or 1) - 1
        raise DataError(f"{info.path}: frames {start} to {last} were asked for, the file has {info.num_frames}")
