"""The clip over something opaque, as an mp4 that plays everywhere."""

import numpy as np

from wan_alpha.alpha.composite import checkerboard
from wan_alpha.alpha.ranges import model_to_uint8
from wan_alpha.media import bt709
from wan_alpha.media.clip_writer import require_rgba
from wan_alpha.media.stream_writer import StreamWriter


class PreviewWriter(StreamWriter):
    """The clip over a checkerboard, one colour, a picture or another clip, as h264.

    Args:
        path: *.mp4.
        fps: frames per second.
        background: "checkerboard"; (R, G, B) in 0..255; or an iterator of (H, W, 3) uint8 frames of the clip's size
            (see backgrounds.py), which must not end before the clip.
        square: side of a checkerboard square in pixels.
        crf: x264 quality, 0 (lossless) to 51.
    """

    suffix = ".mp4"

    def __init__(self, path, fps: float = 16.0, background="checkerboard", square: int = 16, crf: int = 18):
        super().__init__(path, fps)
        self.background, self.square, self.crf = background, square, crf
        self._plate = None

    def encoder_arguments(self):
        # A preview is looked at once: half the time of x264's default, for a tenth more bytes.
        return ["-vf", bt709.FROM_RGB, *bt709.H264, "-preset", "veryfast", "-crf", str(self.crf)]

    def convert(self, frames):
        frames = require_rgba(self.path, frames)
        mixed = [composite_over(frame, self._next_plate(*frame.shape[:2])) for frame in frames]
        return bt709.pad_to_even(np.stack(mixed))

    def _next_plate(self, height: int, width: int) -> np.ndarray:
        if hasattr(self.background, "__next__"):
            return next(self.background)
        if self._plate is None and self.background == "checkerboard":
            board = checkerboard(height, width, self.square)
            self._plate = model_to_uint8(board).permute(1, 2, 0).contiguous().numpy()
        elif self._plate is None:
            self._plate = np.broadcast_to(np.asarray(self.background, np.uint8), (height, width, 3))
        return self._plate


def composite_over(frame: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """Straight RGBA over an opaque plate, in whole numbers: the nearest level of a*F + (1 - a)*B.

    Args:
        frame: (H, W, 4) uint8; plate: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.
    """
    alpha = frame[..., 3].astype(np.uint16)
    clearness = 255 - alpha
    mixed = np.empty(plate.shape, np.uint8)
    for channel in range(3):
        value = frame[..., channel] * alpha
        value += plate[..., channel] * clearness
        value += 128  # x / 255, rounded, is (y + y // 256) // 256 with y = x + 128, for all x up to 255 * 255
        mixed[..., channel] = (value + (value >> 8)) >> 8
    return mixed
