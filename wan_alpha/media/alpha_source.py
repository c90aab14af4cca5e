"""One clip wherever its alpha is: in the file, in a matte beside it, or in the other half of the picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wan_alpha.media.probe import MediaInfo


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


def describe_source(source: AlphaSource) -> MediaInfo:
    """The clip as it will be read: the foreground's MediaInfo with the size of the joined frames, has_alpha True.

    Raises:
        DataError: a file cannot be read, the two differ in size or length, or no alpha is there.
    """
    raise NotImplementedError


def iter_source(
    source: AlphaSource, start: int = 0, num_frames: int | None = None, *, depth: int = 8
) -> Iterator[np.ndarray]:
    """Yield straight RGBA frames, (H, W, 4) uint8 or uint16 by `depth`; only the current one is held.

    Raises:
        DataError: as describe_source; or decoding fails, one stream ends early, or the matte is a colour picture.
    """
    raise NotImplementedError


def read_source(source: AlphaSource, indices: Sequence[int] | None = None, *, depth: int = 8) -> np.ndarray:
    """The frames of these ascending numbers (None: all), (T, H, W, 4) uint8 or uint16. Errors as iter_source."""
    raise NotImplementedError
