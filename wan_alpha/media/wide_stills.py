"""Colour stills of 16 bits a channel, which Pillow can only read as 8: decoded by ffmpeg."""

import subprocess

import numpy as np

from wan_alpha.errors import DataError
from wan_alpha.media import ffmpeg

# ffmpeg's readers of one image, by Pillow's name of the format. They take no patterns and no playlists.
_READERS = {"PNG": "png_pipe", "TIFF": "tiff_pipe"}


def read_rgba64(path, width: int, height: int, image_format: str) -> np.ndarray:
    """One still as straight RGBA, (H, W, 4) uint16, full scale 65535; alpha is 65535 where the file has none.

    Args:
        width, height: as stored, pixels; image_format: "PNG" or "TIFF".

    Raises:
        DataError: the still cannot be decoded.
    """
    command = [
        ffmpeg.executable(),
        "-v",
        "error",
        "-nostdin",
        "-xerror",
        "-protocol_whitelist",
        "file",
        "-threads",
        "1",
    ]
    command += ["-f", _READERS[image_format], "-i", ffmpeg.file_argument(path), "-frames:v", "1"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgba64le", "pipe:1"]
    run = subprocess.run(command, capture_output=True)
    if run.returncode != 0 or len(run.stdout) != width * height * 8:
        reason = ffmpeg.reason(run.stderr.decode(errors="replace"), path)
        raise DataError(f"{path}: the image is cut short or damaged:\n{reason}")
    return np.frombuffer(run.stdout, "<u2").reshape(height, width, 4)
