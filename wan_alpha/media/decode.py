"""One ffmpeg process that decodes the wanted frames of one video and sends nothing else."""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from wan_alpha.errors import DataError
from wan_alpha.media import ffmpeg, in_process
from wan_alpha.media.probe import MediaInfo
from wan_alpha.media.raw_frames import RawFrames, raw_frames

# Frames that decode in about the time that another process takes to start: gaps below that are decoded through.
_WORTH_A_START = 24
# Short clips are read by many processes at once, one thread each; threads of one decoder pay off for long ones.
_SHORT = 32
# A large pipe, where the system grants it: fewer switches between ffmpeg and the reader.
_PIPE_BYTES = 1 << 20


def decode(info: MediaInfo, layout: str, depth: int, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the frames of these ascending numbers as the file stores them, turned upright.

    Decoding starts at the last keyframe before each run of wanted frames where the container can be seeked in exactly,
    else at the first frame; frames in between are dropped before they are converted.

    Args:
        layout: "rgba", "rgb24" or "gray"; depth: 8 or 16.
        indices: frame numbers, ascending, without repeats.

    Yields:
        (H, W, C) or, for "gray", (H, W); uint8 or uint16. In memory those of YUV videos lie plane by plane.

    Raises:
        DataError: decoding fails, or the file is damaged where it was read.
    """
    raw = raw_frames(info, layout, depth)
    for run in split_into_runs(info, indices):
        entry, num_delivered = entry_frame(info, run[0]), 0
        if in_process.can_decode(info, raw, entry, run):
            for frame in in_process.decode_run(info, raw, entry, run):
                num_delivered += 1
                yield raw.finish(frame)
        if num_delivered < len(run):
            yield from _decode_run(info, raw, run[num_delivered:])


def split_into_runs(info: MediaInfo, indices: Sequence[int]) -> list[list[int]]:
    """Cut where starting again at a keyframe is cheaper than decoding all that lies between two wanted frames."""
    runs = [[indices[0]]]
    for previous, index in pairwise(indices):
        if entry_frame(info, index) - previous > _WORTH_A_START:
            runs.append([])
        runs[-1].append(index)
    return runs


def entry_frame(info: MediaInfo, index: int) -> int:
    """Frame at which decoding starts so that frame `index` comes out right."""
    if not info.timeline.can_seek:
        return 0
    place = np.searchsorted(info.timeline.keyframes, index, side="right") - 1
    return info.timeline.keyframes[place]


def _decode_run(info: MediaInfo, raw: RawFrames, indices: list[int]) -> Iterator[np.ndarray]:
    entry, start = entry_frame(info, indices[0]), indices[0]
    command = [ffmpeg.executable(), "-v", "error", "-nostdin", "-xerror"]
    command += ["-filter_threads", "1", "-threads", "1" if indices[-1] - entry < _SHORT else "2"]
    filters = []
    if entry > 0:
        # To the keyframe by time, on to the wanted frame by dropping: the threshold lies midway between two frames, so
        # that no rounding of times matters.
        times = info.timeline.times
        command += ["-copyts", "-seek_timestamp", "1", "-noaccurate_seek"]
        command += ["-ss", f"{times[entry] + 0.25 * (times[entry] - times[entry - 1]):.6f}"]
        if start > 0:
            filters.append(f"select=gte(t\\,{(times[start] + times[start - 1]) / 2:.6f})")
    elif start > 0:
        filters.append(f"trim=start_frame={start}")
    if len(indices) <= indices[-1] - start:
        filters.append(f"select={_wanted(indices)}")
    filters.append(raw.filters)
    command += [*ffmpeg.input_arguments(info.path, info.decoder), "-map", "0:V:0", "-vf", ",".join(filters)]
    command += ["-fps_mode", "passthrough", "-frames:v", str(len(indices))]
    command += ["-f", "rawvideo", "-pix_fmt", raw.pix_fmt, "pipe:1"]
    for frame in _run(info.path, command, raw):
        yield raw.finish(frame)


def _wanted(indices: list[int]) -> str:
    """An expression of ffmpeg that is true for these frames, counted from the first of them."""
    pieces, first, last = [], indices[0], indices[0]
    for index in [*indices[1:], None]:
        if index is not None and index == last + 1:
            last = index
            continue
        pieces.append(f"between(n\\,{first - indices[0]}\\,{last - indices[0]})")
        first = last = index
    return "+".join(pieces)


def _run(path, command: list[str], raw: RawFrames) -> Iterator[np.ndarray]:
    # A file for the log: a pipe that nobody reads could fill up and stop ffmpeg.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=log, pipesize=_PIPE_BYTES)
        try:
            while True:
                frame = np.empty(raw.shape, raw.dtype)
                parts = [frame[place] for place in raw.places] or [frame]
                filled = sum(_fill(process.stdout, part) for part in parts)
                if filled < sum(part.nbytes for part in parts):
                    break
                yield frame
            process.wait()
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
        log.seek(0)
        text = log.read().decode(errors="replace")
    if damage := ffmpeg.find_damage(text):
        raise DataError(f"{path}: the file is cut short or damaged ({damage})")
    if process.returncode != 0 or filled:
        raise DataError(f"{path}: decoding failed ({ffmpeg.reason(text, path)})")


def _fill(pipe, frame: np.ndarray) -> int:
    """Read a frame's or a plane's bytes into place; returns how many came before the stream ended."""
    view = memoryview(frame).cast("B")
    filled = 0
    while filled < len(view) and (count := pipe.readinto(view[filled:])):
        filled += count
    return filled
