"""A clip in the form that a page opened from disk may read: scripts that hold its frames and its video as text.

A page at a file:// address may show a picture that lies beside it, but not read its pixels, and may not fetch at all.
What a script hands over is the page's own: alpha and differences can be computed from it. Every frame is a file of
its own, loaded when it is looked at, so that a long clip costs the browser no more memory than a short one.
"""

import base64
import contextlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from wan_alpha.data.clips import describe_clip, iter_clip
from wan_alpha.errors import DataError
from wan_alpha.media.probe import probe
from wan_alpha.media.stills import list_frames
from wan_alpha.media.write import WebmAlphaWriter, write_png
from wan_alpha.metrics.coverage import Coverage, coverage

DEFAULT_FPS = 16.0
PROBE_SIZE = 16


@dataclass(frozen=True)
class PageClip:
    """A clip as the page knows it: `key` names its folder and its frames; fps in frames per second."""

    key: str
    width: int
    height: int
    num_frames: int
    fps: float
    has_video: bool
    coverage: Coverage


def write_clip(source, key, clips_folder, max_frames=None, callback=None):
    """Write a clip's frames, losslessly, and a WebM with alpha for playing.

    Args:
        source: a ClipSource; key: its name in the page; clips_folder: gets a folder of that name.
        max_frames: frames from the start, None for all; callback: called as callback(frames written) after each.

    Returns:
        a :class:`PageClip`.

    Raises:
        DataError: the clip cannot be read, or the files cannot be written.
    """
    info = describe_clip(source.row)
    num_frames = min(info.num_frames, max_frames or info.num_frames)
    fps = _frame_rate(source, info)
    folder = clips_folder / key
    folder.mkdir(parents=True)
    pngs = _png_files(source.row)
    shares = []
    with tempfile.TemporaryDirectory(dir=clips_folder) as scratch:
        made = Path(scratch) / "video.webm" if source.video is None and num_frames > 1 else None
        with contextlib.ExitStack() as stack:
            writer = None if made is None else stack.enter_context(WebmAlphaWriter(made, fps))
            for index, frame in enumerate(iter_clip(source.row, 0, num_frames)):
                png = pngs[index] if pngs else Path(scratch) / "frame.png"
                if not pngs:
                    write_png(png, frame)
                write_handover(folder / f"{index:05d}.js", f"{key}/{index}", png.read_bytes())
                if writer is not None:
                    writer.write(frame[None])
                shares.append(asdict(coverage(torch.from_numpy(frame[..., 3].copy()).float() / 255)))
                if callback is not None:
                    callback(index + 1)
        video = source.video if source.video is not None and num_frames > 1 else made
        if video is not None:
            write_handover(folder / "video.js", f"{key}/video", video.read_bytes())
    mean = {name: sum(share[name] for share in shares) / len(shares) for name in shares[0]}
    return PageClip(key, info.width, info.height, num_frames, fps, video is not None, Coverage(**mean))


def write_handover(path, name, data):
    """Write the script that hands ``data`` to the page under ``name``."""
    text = base64.b64encode(data).decode()
    path.write_text(f'wanReport.deliver("{name}", "{text}");\n', encoding="ascii")


def _png_files(row):
    """A folder's own PNG files, which need no second compression; none for anything else."""
    files = list_frames(row.foreground) if row.matte is None and row.foreground.is_dir() else []
    return files if all(file.suffix.lower() == ".png" for file in files) else []


def _frame_rate(source, info):
    given = source.settings.get("recipe", {}).get("fps")
    return given or info.fps or (probe(source.video).fps if source.video else 0) or DEFAULT_FPS


def check_reference(source, reference):
    """Refuse a reference that cannot be compared with its clip frame by frame.

    Raises:
        DataError: sizes or frame counts differ, or one of the two has no alpha or cannot be read.
    """
    clips = describe_clip(source.row), describe_clip(reference)
    shapes = [f"{info.num_frames} frames of {info.width}x{info.height}" for info in clips]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"{reference.foreground}: has {shapes[1]}, its clip {source.row.foreground} has {shapes[0]}; a difference "
            "needs both alike"
        )


def transparent_video(folder):
    """A tiny WebM, its left half clear, its right opaque: what a browser makes of it tells whether it plays alpha.

    Returns its bytes.
    """
    path = Path(folder) / "probe.webm"
    frames = np.zeros((2, PROBE_SIZE, PROBE_SIZE, 4), np.uint8)
    frames[:, :, PROBE_SIZE // 2 :] = 255
    with WebmAlphaWriter(path, 8) as writer:
        writer.write(frames)
    data = path.read_bytes()
    path.unlink()
    return data
