"""Files that the package has no writer for, made by ffmpeg itself."""

import subprocess

import numpy as np

from wan_alpha.media import ffmpeg


def run_ffmpeg(*arguments, feed=None):
    subprocess.run([ffmpeg.executable(), "-v", "error", "-y", *map(str, arguments)], input=feed, check=True)


def encode(path, clip, *arguments, fps=10, pix_fmt=None):
    """Write frames, (T, H, W, C) uint8 or uint16, with any encoder; `pix_fmt` names what the frames are."""
    names = {(1, 4): "rgba", (1, 3): "rgb24", (2, 4): "rgba64le", (2, 3): "rgb48le"}
    feed = pix_fmt or names[clip.dtype.itemsize, clip.shape[-1]]
    size = f"{clip.shape[2]}x{clip.shape[1]}"
    run_ffmpeg(
        "-f", "rawvideo", "-pix_fmt", feed, "-framerate", fps, "-video_size", size, "-i", "pipe:0", *arguments, path,
        feed=clip.tobytes(),
    )  # fmt: skip
    return path


def counting_clip(num_frames, height=32, width=32):
    """Grey frames of brightness 16 + 4 * t, so that each of up to 60 tells its number, (T, H, W, 3)."""
    levels = 16 + 4 * np.arange(num_frames, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def numbers_of(frames):
    """The frame numbers of a counting clip's frames after any codec."""
    return [round((float(frame[..., :3].mean()) - 16) / 4) for frame in frames]
