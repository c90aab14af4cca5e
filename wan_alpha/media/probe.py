"""What a media file holds, before any frame is decoded."""

import re
import subprocess
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from wan_alpha.errors import DataError
from wan_alpha.media import ffmpeg, stills
from wan_alpha.media.missing import no_such
from wan_alpha.media.timeline import Timeline, parse_packets

# ffmpeg's own VP8 and VP9 decoders drop the alpha plane of a WebM without a word; libvpx keeps it.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_ALPHA_FORMAT = re.compile(r"(rgba|bgra|argb|abgr|yuva|gbrap|ya\d|ayuv|vuya)")


@dataclass(frozen=True)
class MediaInfo:
    """One readable file (or folder of frames).

    `num_frames` counts the frames that are shown and needs no decoding; `fps` is 0 where the file names none (stills,
    folders), and the mean where it varies. `has_alpha` says that an alpha plane exists, not that anything is
    transparent. `decoder` is set where the default decoder would lose the alpha plane.

    `bit_depth` is that of a stored channel (8, 10, 12, 16). `duration` in seconds, 0 where the file names no rate.
    `color_range` ("limited", "full") and `color_matrix` ("bt709", "smpte170m", ...) are "" where the file says nothing:
    ffmpeg then takes YUV for limited BT.601. `rotation`: degrees clockwise, 0 to 270, by which reading turns the stored
    frames; width and height are those of the upright frames. `is_variable_rate`: the time between frames changes.
    `timeline`: the times of its frames, None for stills and folders.
    """

    path: Path
    codec: str
    width: int
    height: int
    fps: float
    num_frames: int
    pix_fmt: str
    has_alpha: bool
    decoder: str | None = None
    bit_depth: int = 8
    duration: float = 0.0
    color_range: str = ""
    color_matrix: str = ""
    rotation: int = 0
    is_variable_rate: bool = False
    timeline: Timeline | None = field(default=None, repr=False, compare=False)

    @property
    def is_still(self) -> bool:
        return self.num_frames == 1

    @property
    def is_image(self) -> bool:
        """Read by Pillow rather than by ffmpeg."""
        return stills.is_image_path(self.path)


def probe(path) -> MediaInfo:
    """Describe a video, still, animation or folder of frames.

    Raises:
        DataError: the file is missing, empty, cut short, not media, or holds no video.
    """
    path = Path(path)
    if path.is_dir():
        return _probe_image(path)
    if not path.exists():
        raise DataError(no_such(path))
    if not path.is_file():
        raise DataError(f"{path}: not a regular file")
    state = path.stat()
    if state.st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    if path.suffix.lower() == ".zip":
        raise DataError(f"{path}: archives are not read; unpack it and give the folder of frames")
    # Keyed by size and time as well, so that a rewritten file is looked at again.
    return _probe_file(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _probe_file(path: Path, mtime_ns: int, size: int) -> MediaInfo:
    return _probe_image(path) if stills.is_image_path(path) else _probe_video(path)


def _probe_image(path: Path) -> MediaInfo:
    header = stills.read_header(path)
    timeline = None
    if header.durations:
        starts = np.cumsum((0.0, *header.durations[:-1]))
        timeline = Timeline(starts, (0,), False, header.durations[-1])
    return MediaInfo(
        path, header.format, header.width, header.height, header.fps, header.num_frames, header.mode, header.has_alpha,
        bit_depth=header.bit_depth, duration=timeline.duration if timeline else 0.0,
        is_variable_rate=timeline is not None and timeline.is_variable(), timeline=timeline,
    )  # fmt: skip


def _probe_video(path: Path) -> MediaInfo:
    # Copying the packets lists them without decoding; the same run prints the stream's description. Times are kept as
    # the file has them (copyts), for they are what is seeked to.
    command = [ffmpeg.executable(), "-hide_banner", "-nostdin", "-copyts", *ffmpeg.input_arguments(path)]
    command += ["-map", "0:V:0", "-c", "copy", "-copyinkf", "-f", "framecrc", "pipe:1"]
    run = subprocess.run(command, capture_output=True)
    log, packets = run.stderr.decode(errors="replace"), run.stdout.decode(errors="replace")
    if damage := ffmpeg.find_damage(log):
        raise DataError(f"{path}: the file is cut short or damaged ({damage})")
    if "matches no streams" in log:
        raise DataError(f"{path}: holds no video stream, or is cut short within its header")
    if run.returncode != 0:
        raise DataError(f"{path}: not a video that can be read, or cut short ({ffmpeg.reason(log, path)})")
    return _parse_stream(path, log.split("Output #0")[0], packets)


def _parse_stream(path: Path, log: str, packets: str) -> MediaInfo:
    streams = re.split(r"\n\s*Stream #", log.split("Stream mapping:")[0])[1:]
    videos = [text for text in streams if ": Video: " in text.splitlines()[0] and "(attached pic)" not in text]
    line = videos[0].splitlines()[0].split(": Video: ", 1)[1] if videos else ""
    fields = [field.strip() for field in re.split(r",(?![^(]*\))", line)]
    size = re.search(r"\b(\d+)x(\d+)\b", re.sub(r"\([^)]*\)", "", line))
    if len(fields) < 2 or not size:
        raise DataError(f"{path}: ffmpeg's description of the video stream is not understood: {line or 'none given'}")
    codec, (pix_fmt, color_range, color_matrix) = fields[0].split()[0], _parse_pixels(fields[1])
    rate = re.search(r"([\d.]+)(k?) fps", line) or re.search(r"([\d.]+)(k?) tbr", line)
    fps = _exact_rate(float(rate.group(1)) * (1000 if rate.group(2) else 1)) if rate else 0.0
    container = re.search(r"^Input #0, (\S+), from", log, re.MULTILINE)
    timeline = parse_packets(packets, container.group(1) if container else "", codec, fps)
    if timeline is None:
        raise DataError(f"{path}: holds no video frames")
    width, height = int(size.group(1)), int(size.group(2))
    turned = re.search(r"rotation of (-?[\d.]+) degrees", videos[0])
    rotation = -round(float(turned.group(1))) % 360 if turned else 0  # ffmpeg counts counter-clockwise
    if rotation % 180 == 90:
        width, height = height, width  # ffmpeg turns the frames upright when it decodes them
    alpha_tag = re.search(r"alpha_mode\s*:\s*1", videos[0], re.IGNORECASE)
    decoder = _ALPHA_DECODERS.get(codec) if alpha_tag else None
    if codec == "hevc" and not _ALPHA_FORMAT.match(pix_fmt):
        pix_fmt = _decoded_format(path) or pix_fmt  # only decoding shows the alpha layer
    is_variable_rate = timeline.is_variable()
    if is_variable_rate and timeline.duration > 0:
        fps = round(len(timeline.times) / timeline.duration, 3)
    return MediaInfo(
        path, codec, width, height, fps, len(timeline.times), pix_fmt,
        has_alpha=decoder is not None or bool(_ALPHA_FORMAT.match(pix_fmt)), decoder=decoder,
        bit_depth=_bit_depth(pix_fmt), duration=timeline.duration, color_range=color_range, color_matrix=color_matrix,
        rotation=rotation, is_variable_rate=is_variable_rate, timeline=timeline,
    )  # fmt: skip


def _parse_pixels(text: str) -> tuple[str, str, str]:
    """Pixel format, range and matrix from "yuv420p(tv, bt709, progressive)"."""
    pix_fmt, _, details = text.partition("(")
    words = [word.strip() for word in details.rstrip(")").split(",")]
    color_range = {"tv": "limited", "pc": "full"}.get(words[0], "")
    # One word where matrix, primaries and transfer agree, else three joined by slashes.
    names = [word.split("/")[0] for word in words if re.match(r"(bt\d|smpte|gbr|fcc|ycgco|unknown)", word)]
    color_matrix = names[0] if names and names[0] != "unknown" else ""
    return pix_fmt, color_range, color_matrix


def _exact_rate(printed: float) -> float:
    """ffmpeg prints 30000/1001 as 29.97."""
    exact = round(printed) * 1000 / 1001
    return exact if abs(printed - exact) < 0.006 and printed != round(printed) else printed


def _bit_depth(pix_fmt: str) -> int:
    wide = re.search(r"(?:p|gray|ya|p0|xyz|y2)(9|10|12|14|16)(?:le|be)?$", pix_fmt)
    return int(wide.group(1)) if wide else 16 if re.search(r"(48|64)(le|be)$", pix_fmt) else 8


def _decoded_format(path: Path) -> str | None:
    """Pixel format of the first decoded frame, None where none could be decoded (reading will say why)."""
    command = [ffmpeg.executable(), "-hide_banner", "-nostdin", "-v", "verbose", *ffmpeg.input_arguments(path)]
    command += ["-map", "0:V:0", "-frames:v", "1", "-f", "null", "-"]
    log = subprocess.run(command, capture_output=True).stderr.decode(errors="replace")
    found = re.search(r"^\[graph[^\]]*\] .*pix_?fmt:(\w+)", log, re.MULTILINE)
    return found.group(1) if found else None
