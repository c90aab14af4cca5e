"""What a matte picture's levels mean: 0 to 255, or 16 to 235 that nobody expanded; and whether it is a matte at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from wan_alpha.media.packed import split
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_indices, matte_from_rgb

MATTE_RANGES = ("full", "limited", "auto")

_BLACK, _WHITE = 16, 235
# Levels by which lossy codecs stray from black and white.
_STRAY = 3
# Part of all pixels that must lie at black, and at white, before a matte counts as limited.
_PILED = 0.01


@dataclass(frozen=True)
class MatteEvidence:
    """What a matte's frames show: "full" or "limited" levels, and how far R, G and B differ on average, in levels."""

    levels: str
    spread: float


def look_at_matte(path, packing: str = "none") -> MatteEvidence:
    """Look at a matte's middle frame, and at its first and last where that one leaves open what its levels mean.

    Limited is a matte that never leaves 16..235 and has both its clear and its opaque pixels piled up at these ends;
    one without opaque pixels may as well be of full range, and counts as that.

    Args:
        path: matte file; with `packing`, the file that has the matte in a half of its frames.
    """
    path, info = Path(path), probe(path)
    changed = path.stat().st_mtime_ns
    return _look(path, packing, info.num_frames, changed)


def expand_limited(matte: np.ndarray) -> np.ndarray:
    """Limited to full range, rounded: (v - 16) * 255 / 219, and the same at 16 bits. Any shape, uint8 or uint16."""
    unit = np.iinfo(matte.dtype).max // 255
    values = (matte.astype(np.float32) - _BLACK * unit) * (255 / (_WHITE - _BLACK))
    return np.rint(np.clip(values, 0, 255 * unit)).astype(matte.dtype)


@lru_cache(maxsize=4096)
def _look(path: Path, packing: str, num_frames: int, changed: int) -> MatteEvidence:
    spread, counts = None, np.zeros(256, np.int64)
    for frame in _iter_from_the_middle(path, packing, num_frames):
        if spread is None:
            spread = float((frame.max(axis=-1).astype(np.int16) - frame.min(axis=-1)).mean())
        counts += np.bincount(matte_from_rgb(frame).reshape(-1), minlength=256)
        if counts[: _BLACK - _STRAY].any() or counts[_WHITE + _STRAY + 1 :].any():
            return MatteEvidence("full", spread)
    at_black = counts[_BLACK - _STRAY : _BLACK + _STRAY + 1].sum() / counts.sum()
    at_white = counts[_WHITE - _STRAY : _WHITE + _STRAY + 1].sum() / counts.sum()
    return MatteEvidence("limited" if min(at_black, at_white) >= _PILED else "full", spread)


def _iter_from_the_middle(path: Path, packing: str, num_frames: int) -> Iterator[np.ndarray]:
    for index in dict.fromkeys((num_frames // 2, 0, num_frames - 1)):
        for frame in iter_indices(path, [index], "rgb24"):
            yield frame if packing == "none" else split(frame, packing)[1]
