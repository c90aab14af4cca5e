"""The files of one generated clip, written while it is decoded."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wan_alpha.alpha.ranges import rgba_frames
from wan_alpha.media.verify import AlphaError, check_alpha
from wan_alpha.media.write import MatteWriter, PngSequenceWriter, PreviewWriter, WebmAlphaWriter
from wan_alpha.metrics.coverage import Coverage, coverage


@dataclass(frozen=True)
class WrittenClip:
    """What came of writing: how much of the clip is clear, semi-transparent and opaque, and the WebM's alpha error."""

    num_frames: int
    coverage: Coverage
    webm_alpha_error: AlphaError


def write_clip(chunks, folder, fps, callback=None):
    """Write a clip chunk by chunk: frames/*.png, preview.mp4, alpha.mp4, video.webm; only its 8-bit alpha is kept.

    Args:
        chunks: iterable of (rgb, alpha) as ``RGBAlphaVAE.iterate_decode`` yields them, one sample.
        folder: existing folder; fps: frames per second.
        callback: called as callback(frames written) after every chunk.

    Raises:
        DataError: a file cannot be written.
    """
    folder, alphas = Path(folder), []
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(writer)
            for writer in (
                PngSequenceWriter(folder / "frames"),
                PreviewWriter(folder / "preview.mp4", fps),
                MatteWriter(folder / "alpha.mp4", fps),
                WebmAlphaWriter(folder / "video.webm", fps),
            )
        ]
        for rgb, alpha in chunks:
            frames = rgba_frames(rgb, alpha)
            for writer in writers:
                writer.write(frames)
            alphas.append(frames[..., 3].copy())
            if callback is not None:
                callback(sum(map(len, alphas)))
    alpha = np.concatenate(alphas)
    shares = coverage(torch.from_numpy(alpha).float() / 255)
    return WrittenClip(len(alpha), shares, check_alpha(folder / "video.webm", alpha))
