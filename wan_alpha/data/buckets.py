"""Buckets: the few sizes (frames x height x width) that clips of many lengths and forms are brought to.

Needs no torch: recipes are checked with it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from wan_alpha.errors import ConfigError

ASPECTS = ("16:9", "4:3", "1:1", "3:4", "9:16")
_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")
_ASPECT = re.compile(r"(\d+):(\d+)")
# Below this, one bucket cuts off as much of a clip as another.
_SAME_CROP = 1e-6


@dataclass(frozen=True, order=True)
class Bucket:
    """A size of clips: frames (4n+1), height and width in pixels. As text, 49x256x448."""

    frames: int
    height: int
    width: int

    def __str__(self):
        return f"{self.frames}x{self.height}x{self.width}"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def aspect(self) -> float:
        """Width by height."""
        return self.width / self.height


def nearest_frames(frames: int) -> list[int]:
    """The nearest lengths of the form 4n+1: [frames] itself, or the two around it."""
    if frames >= 1 and frames % 4 == 1:
        return [frames]
    lower = max(1, (frames - 1) // 4 * 4 + 1)
    return [lower, lower + 4]


def nearest_sides(side: int, multiple: int) -> list[int]:
    """The nearest multiples: [side] itself, or the two around it."""
    if side >= multiple and side % multiple == 0:
        return [side]
    lower = max(multiple, side // multiple * multiple)
    return [lower, lower + multiple]


def parse_bucket(text: str, multiple: int = 16) -> Bucket:
    """The bucket of a text such as 49x256x448.

    Args:
        multiple: of pixels, what both sides must be multiples of.

    Raises:
        ConfigError: it is not of this form, or off the grid; the nearest valid ones are named.
    """
    match = _SHAPE.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ConfigError(f"{text!r}: write frames x height x width, such as 49x256x448")
    frames, height, width = map(int, match.groups())
    nearest = [
        Bucket(*shape)
        for shape in zip(
            *_spread([nearest_frames(frames), nearest_sides(height, multiple), nearest_sides(width, multiple)]),
            strict=True,
        )
    ]
    if len(set(nearest)) > 1:
        raise ConfigError(
            f"{text}: a clip has 4n+1 frames and sides that are multiples of {multiple} pixels: {nearest[0]} or "
            f"{nearest[1]} would be valid"
        )
    return nearest[0]


def _spread(choices):
    return [values if len(values) == 2 else values * 2 for values in choices]


def parse_aspect(text: str) -> float:
    """Width by height of a text such as 16:9.

    Raises:
        ConfigError: it is not of this form.
    """
    match = _ASPECT.fullmatch(text.replace(" ", ""))
    if match is None or "0" in match.groups():
        raise ConfigError(f"{text!r}: write width:height, such as 16:9")
    return int(match[1]) / int(match[2])


def buckets_within(
    pixels: int,
    frames: Sequence[int],
    aspects: Sequence[str] = ASPECTS,
    max_area: int | None = None,
    multiple: int = 16,
) -> list[Bucket]:
    """The buckets of a budget: for each length and aspect the largest size within it.

    Args:
        pixels: most pixels of a clip, frames * height * width.
        frames: lengths, 4n+1; aspects: width:height; max_area: most pixels of a frame, height * width.
        multiple: of pixels, what both sides are multiples of.

    Raises:
        ConfigError: the budget is too small for a length and aspect.
    """
    found = []
    for length in frames:
        area = pixels // length if max_area is None else min(pixels // length, max_area)
        for aspect in aspects:
            size = _largest_size(area, parse_aspect(aspect), multiple)
            if size is None:
                raise ConfigError(
                    f"{area} pixels a frame ({length} frames of {pixels} pixels in all) are too few for the aspect "
                    f"{aspect} in multiples of {multiple}: raise the budget, or leave that length or aspect out"
                )
            found.append(Bucket(length, *size))
    return sorted(set(found))


def _largest_size(area, aspect, multiple):
    """(height, width) on the grid within an area, of which a frame of the aspect fills the most; None: nothing fits."""
    best = None
    for height in range(multiple, int(math.sqrt(area)) * 4 + multiple, multiple):
        fitting = area // height // multiple * multiple
        for width in {fitting, min(fitting, round(height * aspect / multiple) * multiple)} - {0}:
            shared = _shared(width / height, aspect)
            filled = round(height * width * shared), shared
            if best is None or filled > best[0]:
                best = filled, height, width
    return best and best[1:]


def _shared(aspect, other):
    """How much of a frame is left when it is cut to another aspect, (0, 1]."""
    return min(aspect / other, other / aspect)


def choose_bucket(buckets: Sequence[Bucket], num_frames: int, size: tuple[int, int]) -> Bucket:
    """The bucket of a clip: the longest that it fills, of these the one that cuts off least of its frame, of these the
    largest that it need not be enlarged for (the smallest, if it must be for all).

    A still goes to the shortest; a clip shorter than all buckets too.

    Args:
        num_frames: that the clip has; size: (height, width) of its frames.
    """
    length = max(
        (one.frames for one in buckets if one.frames <= num_frames), default=min(one.frames for one in buckets)
    )
    same_length = [one for one in buckets if one.frames == length]
    height, width = size
    kept = {one: _shared(one.aspect, width / height) for one in same_length}
    most = max(kept.values())
    fitting = sorted(
        (one for one in same_length if kept[one] >= most - _SAME_CROP), key=lambda one: (one.height * one.width, one)
    )
    unenlarged = [one for one in fitting if one.height <= height and one.width <= width]
    return unenlarged[-1] if unenlarged else fitting[0]
