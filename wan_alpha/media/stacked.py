"""Stacked alpha: an ordinary h264 video with the colour above and the matte below it, for players that join them.

It plays in hardware wherever h264 does. A page with the small shader that joins the halves is written beside it.
"""

import base64
import html
from importlib.resources import files
from urllib.parse import quote

import numpy as np

from wan_alpha.media import bt709
from wan_alpha.media.clip_writer import require_rgba
from wan_alpha.media.stream_writer import StreamWriter

LARGEST_EMBEDDED = 64 << 20  # bytes of a video that the page holds itself; a longer one is linked
_STEP = 3 << 18  # a multiple of 3: base64 of the parts is then base64 of the whole


class StackedAlphaWriter(StreamWriter):
    """Straight RGBA as h264, the colour in the upper half of the picture and alpha, grey, in the lower.

    Each half is padded to an even size by its last row and column. `<stem>.player.html` is written beside it.

    Args:
        path: *.mp4; fps: frames per second.
        crf: x264 quality, 0 (lossless) to 51.
    """

    suffix = ".mp4"

    def __init__(self, path, fps: float = 16.0, crf: int = 12):
        super().__init__(path, fps)
        self.crf = crf

    def encoder_arguments(self):
        return ["-vf", bt709.FROM_RGB, *bt709.H264, "-crf", str(self.crf)]

    def convert(self, frames):
        frames = bt709.pad_to_even(require_rgba(self.path, frames))
        height = frames.shape[1]
        stacked = np.empty((len(frames), 2 * height, frames.shape[2], 3), np.uint8)
        stacked[:, :height] = frames[..., :3]
        stacked[:, height:] = frames[..., 3:]
        return stacked

    def _finish(self):
        super()._finish()
        write_player(self.path, self._size, self.premultiplied)


def luma(rgb: np.ndarray) -> np.ndarray:
    """Alpha out of the lower half as the player takes it: BT.709's luma, (..., 3) uint8 -> (...) uint8.

    The mean of the channels would also take the chroma that h264's halved planes carry over the seam.
    """
    weighted = rgb[..., 0] * np.float32(0.2126) + rgb[..., 1] * np.float32(0.7152) + rgb[..., 2] * np.float32(0.0722)
    return np.rint(weighted).astype(np.uint8)


def player_path(path):
    """The page that plays the stacked video at `path`."""
    return path.with_name(f"{path.stem}.player.html")


def write_player(path, size: tuple[int, int], premultiplied: bool = False) -> None:
    """Write the page that plays a stacked video: the video (up to 64 MiB) and the shader, nothing from elsewhere.

    Args:
        path: the video; size: (height, width) of the clip in it.
        premultiplied: its colour is multiplied by alpha.
    """
    height, width = size
    page = (files("wan_alpha") / "assets" / "stacked_player.html").read_text(encoding="utf-8")
    values = {
        "TITLE": html.escape(path.name), "WIDTH": width, "HEIGHT": height,
        "PADDED_WIDTH": width + width % 2, "PADDED_HEIGHT": height + height % 2,
        "STRAIGHT": "0.0" if premultiplied else "1.0",
    }  # fmt: skip
    for name, value in values.items():
        page = page.replace(f"@{name}@", str(value))
    before, after = page.split("@SOURCE@")
    target = player_path(path)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as out, open(path, "rb") as video:
            out.write(before)
            if path.stat().st_size <= LARGEST_EMBEDDED:
                out.write("data:video/mp4;base64,")
                while part := video.read(_STEP):
                    out.write(base64.b64encode(part).decode("ascii"))
            else:
                out.write(quote(path.name))
            out.write(after)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
