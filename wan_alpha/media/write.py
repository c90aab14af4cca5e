"""Frames into files, chunk by chunk.

Every writer is a context manager with `write(frames)`, frames (T, H, W, 4) uint8 or uint16 straight RGBA, called as
often as needed: what was written is not kept. The file appears under its name when the `with` block ends well; after an
error nothing is left. Sizes that h264 cannot hold (odd ones) are padded by repeating the last row or column. The
formats by name, with what each keeps, are in formats.py.
"""

import numpy as np

from wan_alpha.errors import ConfigError
from wan_alpha.media import bt709
from wan_alpha.media.alpha_video import HevcAlphaWriter, ProResWriter, WebmAlphaWriter
from wan_alpha.media.clip_writer import require_rgba
from wan_alpha.media.png_sequence import PngSequenceWriter, PngZipWriter, write_png
from wan_alpha.media.preview import PreviewWriter
from wan_alpha.media.stream_writer import StreamWriter

__all__ = [
    "HevcAlphaWriter",
    "LosslessWriter",
    "MatteWriter",
    "OpaqueWriter",
    "PngSequenceWriter",
    "PngZipWriter",
    "PreviewWriter",
    "ProResWriter",
    "WebmAlphaWriter",
    "write_png",
]


class OpaqueWriter(StreamWriter):
    """The straight colour as an h264 mp4; alpha is left out, not composited. (T, H, W, 3) frames are taken too."""

    suffix = ".mp4"

    def __init__(self, path, fps: float = 16.0, crf: int = 14):
        super().__init__(path, fps)
        self.crf = crf

    def encoder_arguments(self):
        return ["-vf", bt709.FROM_RGB, *bt709.H264, "-crf", str(self.crf)]

    def convert(self, frames):
        return bt709.pad_to_even(frames[..., :3])


class MatteWriter(OpaqueWriter):
    """Alpha as a grey h264 mp4."""

    def __init__(self, path, fps: float = 16.0, crf: int = 10):
        super().__init__(path, fps, crf)

    def convert(self, frames):
        # Three equal channels: what "gray" means for range differs between ffmpeg's versions, RGB is always full range.
        return bt709.pad_to_even(_grey(require_rgba(self.path, frames)))


class LosslessWriter(StreamWriter):
    """FFV1 in Matroska, bit-exact.

    Args:
        path: *.mkv.
        fps: frames per second.
        stream: "rgba", all four channels; "rgb", the straight colour; "matte", alpha as grey.
        depth: bits of a channel, 8 or 16.
    """

    suffix = ".mkv"

    def __init__(self, path, fps: float = 16.0, stream: str = "rgba", depth: int = 8):
        super().__init__(path, fps)
        if stream not in ("rgba", "rgb", "matte"):
            raise ConfigError(f"{path}: stream {stream!r} is not one of rgba, rgb, matte")
        self.stream, self.depth = stream, depth
        colour, colour_and_alpha = ("rgb24", "rgba") if depth == 8 else ("rgb48le", "rgba64le")
        self.feed = colour_and_alpha if stream == "rgba" else colour

    def encoder_arguments(self):
        packed, planar = ("bgra", "gbrap16le") if self.stream == "rgba" else ("bgr0", "gbrp16le")
        pixels = packed if self.depth == 8 else planar
        return ["-c:v", "ffv1", "-level", "3", "-slicecrc", "1", "-pix_fmt", pixels]

    def convert(self, frames):
        if self.stream == "rgba":
            return require_rgba(self.path, frames)
        return frames[..., :3] if self.stream == "rgb" else _grey(require_rgba(self.path, frames))


def _grey(frames: np.ndarray) -> np.ndarray:
    return np.repeat(frames[..., -1:], 3, axis=-1)
