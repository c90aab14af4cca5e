"""Short runs of frames decoded in this process by PyAV, where it is installed: no process to start, no pipe to fill.

The libraries are ffmpeg's own and so are the filters, so the frames are the same. Whatever is out of the ordinary ends
the run early; the caller then asks the ffmpeg program for the rest, which knows every case and says what is wrong.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from wan_alpha.media import ffmpeg
from wan_alpha.media.probe import MediaInfo
from wan_alpha.media.raw_frames import RawFrames

# Frames of one run beyond which a process of its own, with threads of its own, is worth its start.
_LONGEST_RUN = 160
# A frame belongs to a number when its time is that near to it, part of the step to the next.
_NEAR = 0.25


@lru_cache(maxsize=1)
def find_pyav():
    """The module `av`, or None where it is not installed."""
    try:
        import av
        import av.filter
    except ImportError:
        return None
    return av


def can_decode(info: MediaInfo, raw: RawFrames, entry: int, indices: Sequence[int]) -> bool:
    """Whether a run is short and plain enough: 8 bits, no alpha plane, upright, in a container with exact times."""
    return (
        find_pyav() is not None
        and indices[-1] - entry < _LONGEST_RUN
        and info.bit_depth == 8
        and not info.has_alpha
        and info.rotation == 0
        and info.decoder is None
        and info.timeline.can_seek
        and "[" not in raw.filters
    )


def decode_run(info: MediaInfo, raw: RawFrames, entry: int, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield frames of these ascending numbers as `raw` describes them; fewer where anything is out of the ordinary.

    Args:
        entry: the keyframe that decoding starts at.
    """
    av = find_pyav()
    try:
        # As on the command line: a local file, in a container that holds its frames itself.
        guards = {"protocol_whitelist": "file", "format_whitelist": ffmpeg.CONTAINERS}
        with av.open(ffmpeg.file_argument(info.path), options=guards) as container:
            yield from _decode(av, container, info, raw, entry, indices)
    except (av.FFmpegError, ValueError):
        return


def _decode(av, container, info, raw, entry, indices) -> Iterator[np.ndarray]:
    (stream, *_) = [one for one in container.streams.video if not one.disposition & one.disposition.attached_pic]
    stream.codec_context.thread_count = 1  # many processes do this at once
    times, graph, waiting = info.timeline.times, None, list(indices)
    if entry > 0:
        container.seek(round((times[entry] + _NEAR * (times[entry] - times[entry - 1])) * 1_000_000))
    for coded in _decoded(container, stream, times[max(indices[0] - 1, 0)], info.codec):
        index = _number_of(coded, times)
        if index is None or index > waiting[0] or coded.is_corrupt:
            return
        if index < waiting[0]:
            continue
        if graph is None:
            graph = _build_graph(av, stream, raw)
        graph.vpush(coded)
        yield _copy_planes(graph.vpull(), raw)
        del waiting[0]
        if not waiting:
            return


def _decoded(container, stream, before: float, codec: str):
    """Decoded frames; of those shown before the moment `before`, seconds, only what other frames are made from."""
    for packet in container.demux(stream):
        if codec == "h264":  # its headers say which those are
            is_early = packet.pts is not None and packet.pts * packet.time_base < before
            stream.codec_context.skip_frame = "NONREF" if is_early else "DEFAULT"
        yield from packet.decode()


def _number_of(coded, times: np.ndarray) -> int | None:
    """The frame's number by its time; -1 before the first, None where the time is no frame's."""
    if coded.pts is None:
        return None
    time = float(coded.pts * coded.time_base)
    index = int(np.abs(times - time).argmin())
    step = float(np.diff(times).min()) if len(times) > 1 else 1.0
    if abs(times[index] - time) < _NEAR * step:
        return index
    return -1 if time < times[0] else None


def _build_graph(av, stream, raw: RawFrames):
    graph = av.filter.Graph()
    graph.threads = 1
    last = graph.add_buffer(template=stream)
    for part in re.split(r"(?<!\\),", f"{raw.filters},format={raw.pix_fmt}"):
        name, _, arguments = part.partition("=")
        step = graph.add(name, arguments.replace("\\,", ","))
        last.link_to(step)
        last = step
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _copy_planes(picture, raw: RawFrames) -> np.ndarray:
    frame = np.empty(raw.shape, raw.dtype)
    parts = [frame[place] for place in raw.places] or [frame]
    for plane, part in zip(picture.planes, parts, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        part.reshape(plane.height, -1)[...] = rows[:, : part.nbytes // plane.height]
    return frame
