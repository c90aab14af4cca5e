"""Frames out of files. A frame number always means the n-th stored frame, whatever the frame rate does."""

import subprocess
import tempfile
from collections.abc import Iterator

import numpy as np

from wan_alpha.errors import DataError
from wan_alpha.media import ffmpeg, stills
from wan_alpha.media.probe import MediaInfo, probe

_CHANNELS = {"rgba": 4, "rgb24": 3}


def iter_frames(
    path,
    pix_fmt: str = "rgba",
    start: int = 0,
    num_frames: int | None = None,
    *,
    source_state: str = "straight",
    depth: int = 8,
) -> Iterator[np.ndarray]:
    """Yield frames one by one; nothing but the current one is held.

    Frames before `start` are decoded and dropped rather than seeked over: the count is then exact for every codec and
    for varying frame rates, which seeking by time is not. Decoding stops after the last wanted frame.

    Args:
        path: video, still, animation or folder of frames.
        pix_fmt: "rgba", straight, alpha 255 where the file has none; or "rgb24", the straight colour alone.
        start: first frame, counted from 0.
        num_frames: how many; None for all that follow.
        source_state: what the file holds: "straight", "premultiplied" (made straight, colour bled outwards under clear
            pixels) or "auto" (judged from the file's own frames, see premultiplied.judge_state).
        depth: 8 for uint8; 16 for uint16, full scale 65535, which keeps 10, 12 and 16 bits.

    Yields:
        (H, W, 4) or (H, W, 3), uint8 or uint16.

    Raises:
        DataError: the file cannot be read, is damaged, or holds fewer frames than asked for. Codecs without checksums
            (h264) can decode wrong bytes to a wrong picture that nothing shows.
    """
    channels = _CHANNELS[pix_fmt]
    info = probe(path)
    _check_range(info, start, num_frames)
    if info.is_image:
        frames = (frame[..., :channels] for frame in stills.iter_rgba(path, start, num_frames))
    else:
        frames = _iter_video(info, pix_fmt, channels, start, num_frames)
    delivered = 0
    for frame in frames:
        delivered += 1
        yield frame
    if delivered == 0 or (num_frames is not None and delivered < num_frames):
        wanted = f"{num_frames} frames" if num_frames is not None else "at least one frame"
        raise DataError(f"{path}: {wanted} from frame {start} on were asked for, {delivered} could be decoded")


def read_rgba(
    path, start: int = 0, num_frames: int | None = None, *, source_state: str = "straight", depth: int = 8
) -> np.ndarray:
    """Straight RGBA frames, (T, H, W, 4) uint8 (or uint16, by `depth`); alpha is 255 (65535) where the file has none.

    Arguments and errors: iter_frames.
    """
    return _collect(path, "rgba", start, num_frames)


def read_rgb(path, start: int = 0, num_frames: int | None = None) -> np.ndarray:
    """Straight colour, (T, H, W, 3) uint8; an alpha plane is left out, not composited. Otherwise as iter_frames."""
    return _collect(path, "rgb24", start, num_frames)


def read_matte(path, start: int = 0, num_frames: int | None = None) -> np.ndarray:
    """Alpha from a grey or RGB matte video, (T, H, W) uint8: the rounded mean of R, G and B, full range.

    Limited-range video (16..235) is expanded by ffmpeg's conversion to RGB. Arguments and errors: iter_frames.
    """
    info = probe(path)
    matte = np.empty((_expected(info, start, num_frames), info.height, info.width), np.uint8)
    return _fill(matte, (matte_from_rgb(frame) for frame in iter_frames(path, "rgb24", start, num_frames)))


def matte_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Mean of the three channels, rounded: (..., 3) uint8 -> (...) uint8."""
    return ((rgb.astype(np.uint16).sum(axis=-1) + 1) // 3).astype(np.uint8)


def _collect(path, pix_fmt: str, start: int, num_frames: int | None) -> np.ndarray:
    info = probe(path)
    clip = np.empty((_expected(info, start, num_frames), info.height, info.width, _CHANNELS[pix_fmt]), np.uint8)
    return _fill(clip, iter_frames(path, pix_fmt, start, num_frames))


def _expected(info: MediaInfo, start: int, num_frames: int | None) -> int:
    _check_range(info, start, num_frames)
    return info.num_frames - start if num_frames is None else num_frames


def _fill(clip: np.ndarray, frames: Iterator[np.ndarray]) -> np.ndarray:
    filled = 0
    for frame in frames:
        if filled == len(clip):  # more frames decoded than packets counted
            clip = np.concatenate([clip, np.empty_like(clip)])
        clip[filled] = frame
        filled += 1
    return clip[:filled]


def _check_range(info: MediaInfo, start: int, num_frames: int | None) -> None:
    if start < 0 or (num_frames is not None and num_frames < 1):
        raise DataError(f"{info.path}: start {start} must be >= 0 and num_frames {num_frames} >= 1")
    if start + (num_frames or 1) > info.num_frames:
        last = start + (num_frames or 1) - 1
        raise DataError(f"{info.path}: frames {start} to {last} were asked for, the file has {info.num_frames}")


def _iter_video(
    info: MediaInfo, pix_fmt: str, channels: int, start: int, num_frames: int | None
) -> Iterator[np.ndarray]:
    filters = f"trim=start_frame={start},scale={info.width}:{info.height}:flags=bicubic+accurate_rnd+full_chroma_int"
    command = [ffmpeg.executable(), "-v", "error", "-nostdin", "-xerror", "-threads", "2"]
    command += [*ffmpeg.input_arguments(info.path, info.decoder), "-map", "0:V:0", "-vf", filters]
    command += ["-fps_mode", "passthrough"] + ([] if num_frames is None else ["-frames:v", str(num_frames)])
    command += ["-f", "rawvideo", "-pix_fmt", pix_fmt, "pipe:1"]
    shape = (info.height, info.width, channels)
    size = info.height * info.width * channels
    # A file for the log: a pipe that nobody reads could fill up and stop ffmpeg.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        try:
            while len(data := process.stdout.read(size)) == size:
                yield np.frombuffer(data, np.uint8).reshape(shape)
            process.wait()
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
        log.seek(0)
        text = log.read().decode(errors="replace")
    if damage := ffmpeg.find_damage(text):
        raise DataError(f"{info.path}: the file is cut short or damaged ({damage})")
    if process.returncode != 0 or data:
        raise DataError(f"{info.path}: decoding failed:\n{ffmpeg.last_lines(text)}")
