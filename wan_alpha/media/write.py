"""Frames into files, chunk by chunk.

Every writer is a context manager with `write(frames)`, frames (T, H, W, 4) uint8 straight RGBA, called as often as
needed: what was written is not kept. The file appears under its name when the `with` block ends well; after an error
nothing is left. Sizes that h264 cannot hold (odd ones) are padded by repeating the last row or column.
"""

import numpy as np

from wan_alpha.alpha.composite import checkerboard
from wan_alpha.alpha.ranges import model_to_uint8
from wan_alpha.errors import ConfigError
from wan_alpha.media.png_sequence import PngSequenceWriter, write_png
from wan_alpha.media.stream_writer import StreamWriter, require_rgba

__all__ = [
    "LosslessWriter",
    "MatteWriter",
    "OpaqueWriter",
    "PngSequenceWriter",
    "PreviewWriter",
    "ProResWriter",
    "WebmAlphaWriter",
    "write_png",
]

# Said in the file and used in the conversion: players otherwise guess the matrix from the frame size.
_BT709 = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
_TO_BT709 = ["-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int"]
_H264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", *_BT709]


class PreviewWriter(StreamWriter):
    """The clip over a checkerboard, or over one colour, as an h264 mp4 that plays everywhere.

    Args:
        path: *.mp4.
        fps: frames per second.
        background: "checkerboard", or (R, G, B) in 0..255.
        square: side of a checkerboard square in pixels.
        crf: x264 quality, 0 (lossless) to 51.
    """

    suffix = ".mp4"

    def __init__(self, path, fps: float = 16.0, background="checkerboard", square: int = 16, crf: int = 18):
        super().__init__(path, fps)
        self.background, self.square, self.crf = background, square, crf
        self._plate = None

    def encoder_arguments(self):
        return [*_TO_BT709, *_H264, "-crf", str(self.crf)]

    def convert(self, frames):
        if self._plate is None:
            self._plate = self._draw_plate(*frames.shape[1:3])
        frames = require_rgba(self.path, frames)
        alpha = frames[..., 3:].astype(np.float32) / 255.0
        mixed = alpha * frames[..., :3] + (1.0 - alpha) * self._plate
        return _pad_to_even(np.rint(mixed).astype(np.uint8))

    def _draw_plate(self, height: int, width: int) -> np.ndarray:
        if self.background != "checkerboard":
            return np.broadcast_to(np.asarray(self.background, np.float32), (height, width, 3))
        return model_to_uint8(checkerboard(height, width, self.square)).permute(1, 2, 0).numpy()


class OpaqueWriter(StreamWriter):
    """The straight colour as an h264 mp4; alpha is left out, not composited. (T, H, W, 3) frames are taken too."""

    suffix = ".mp4"

    def __init__(self, path, fps: float = 16.0, crf: int = 14):
        super().__init__(path, fps)
        self.crf = crf

    def encoder_arguments(self):
        return [*_TO_BT709, *_H264, "-crf", str(self.crf)]

    def convert(self, frames):
        return _pad_to_even(frames[..., :3])


class MatteWriter(OpaqueWriter):
    """Alpha as a grey h264 mp4."""

    def __init__(self, path, fps: float = 16.0, crf: int = 10):
        super().__init__(path, fps, crf)

    def convert(self, frames):
        # Three equal channels: what "gray" means for range differs between ffmpeg's versions, RGB is always full range.
        return _pad_to_even(_grey(require_rgba(self.path, frames)))


class WebmAlphaWriter(StreamWriter):
    """Straight RGBA as VP9 with an alpha plane: a transparent video for browsers.

    Alternate reference frames are off, because they break the alpha stream.
    """

    suffix = ".webm"
    feed = "rgba"

    def __init__(self, path, fps: float = 16.0, crf: int = 12):
        super().__init__(path, fps)
        self.crf = crf

    def encoder_arguments(self):
        codec = ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-b:v", "0", "-crf", str(self.crf)]
        return [*_TO_BT709, *codec, "-deadline", "good", "-cpu-used", "4", "-row-mt", "1", *_BT709]

    def convert(self, frames):
        return require_rgba(self.path, frames)


class ProResWriter(StreamWriter):
    """Straight RGBA as ProRes 4444 with 16-bit alpha, for editing programs."""

    suffix = ".mov"
    feed = "rgba"

    def encoder_arguments(self):
        codec = ["-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le", "-alpha_bits", "16"]
        return [*_TO_BT709, *codec, "-vendor", "apl0", *_BT709]

    def convert(self, frames):
        return require_rgba(self.path, frames)


class LosslessWriter(StreamWriter):
    """FFV1 in Matroska, bit-exact.

    Args:
        path: *.mkv.
        fps: frames per second.
        stream: "rgba", all four channels; "rgb", the straight colour; "matte", alpha as grey.
    """

    suffix = ".mkv"

    def __init__(self, path, fps: float = 16.0, stream: str = "rgba"):
        super().__init__(path, fps)
        if stream not in ("rgba", "rgb", "matte"):
            raise ConfigError(f"{path}: stream {stream!r} is not one of rgba, rgb, matte")
        self.stream = stream
        self.feed = "rgba" if stream == "rgba" else "rgb24"

    def encoder_arguments(self):
        pixels = "bgra" if self.stream == "rgba" else "bgr0"
        return ["-c:v", "ffv1", "-level", "3", "-slicecrc", "1", "-pix_fmt", pixels]

    def convert(self, frames):
        if self.stream == "rgba":
            return require_rgba(self.path, frames)
        return frames[..., :3] if self.stream == "rgb" else _grey(require_rgba(self.path, frames))


def _grey(frames: np.ndarray) -> np.ndarray:
    return np.repeat(frames[..., -1:], 3, axis=-1)


def _pad_to_even(frames: np.ndarray) -> np.ndarray:
    odd_rows, odd_columns = frames.shape[1] % 2, frames.shape[2] % 2
    return np.pad(frames, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
