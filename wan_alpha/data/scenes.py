"""Where a clip cuts from one scene to another."""

import numpy as np
from PIL import Image

_SIDE = 32
# A cut changes more than this part of what is seen, and this many times what frames around it change.
_CHANGE, _TIMES_USUAL = 0.35, 3.0
_WINDOW = 8
# Frames with less than this part of the largest possible sum show nothing: a subject that comes or goes is no cut.
_EMPTY = 0.001


class CutFinder:
    """Sees a clip's frames one after the other and keeps one number of each.

        change[t] = sum |P[t] - P[t-1]| / sum (P[t] + P[t-1])        (P: premultiplied RGBA, 32x32)

    It is 0 where nothing changes and 1 where nothing is left of what was seen.
    """

    def __init__(self):
        self._changes: list[float] = []
        self._previous = None

    def see(self, frame: np.ndarray) -> None:
        """Take the next frame, straight RGBA (H, W, 4) uint8."""
        image = Image.fromarray(frame).convert("RGBa").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        seen = np.frombuffer(image.tobytes(), np.uint8).astype(np.int64)
        if self._previous is not None:
            total = int((seen + self._previous).sum())
            is_empty = min(seen.sum(), self._previous.sum()) < _EMPTY * 255 * seen.size
            self._changes.append(0.0 if is_empty else float(np.abs(seen - self._previous).sum() / total))
        self._previous = seen

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin a new scene, ascending; the first frame is not among them."""
        found = []
        for place, change in enumerate(self._changes):
            around = self._changes[max(place - _WINDOW, 0) : place] + self._changes[place + 1 : place + 1 + _WINDOW]
            usual = float(np.median(around)) if around else 0.0
            if change > _CHANGE and change > _TIMES_USUAL * usual:
                found.append(place + 1)
        return found


def split_at(cuts: list[int], num_frames: int) -> list[tuple[int, int]]:
    """(first frame, one past the last) of each scene."""
    borders = [0, *cuts, num_frames]
    return list(zip(borders[:-1], borders[1:], strict=True))
