"""What a media file holds, before any frame is decoded."""

import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from wan_alpha.errors import DataError
from wan_alpha.media import ffmpeg, stills

# ffmpeg's own VP8 and VP9 decoders drop the alpha plane of a WebM without a word; libvpx keeps it.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_ALPHA_FORMAT = re.compile(r"(rgba|bgra|argb|abgr|yuva|gbrap|ya\d|ayuv|vuya)")


@dataclass(frozen=True)
class MediaInfo:
    """One readable file (or folder of frames).

    `num_frames` counts packets and needs no decoding; `fps` is 0 where the file names none (stills, folders).
    `has_alpha` says that an alpha plane exists, not that anything is transparent. `decoder` is set where the default
    decoder would lose the alpha plane.

    `bit_depth` is that of a stored channel (8, 10, 12, 16). `duration` in seconds, 0 where the file names no frame rate.
    `color_range` ("limited", "full") and `color_matrix` ("bt709", "smpte170m", ...) are "" where the file says nothing.
    `rotation`: degrees clockwise, 0 to 270, by which reading turns the stored frames; width and height are those of the
    upright frames. `is_variable_rate`: the time between frames changes. `keyframes`: frame numbers that decoding can
    start at.
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
    keyframes: tuple[int, ...] = (0,)

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
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: not a regular file")
    state = path.stat()
    if state.st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    # Keyed by size and time as well, so that a rewritten file is looked at again.
    return _probe_file(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _probe_file(path: Path, mtime_ns: int, size: int) -> MediaInfo:
    return _probe_image(path) if stills.is_image_path(path) else _probe_video(path)


def _probe_image(path: Path) -> MediaInfo:
    header = stills.read_header(path)
    return MediaInfo(
        path, header.format, header.width, header.height, header.fps, header.num_frames, header.mode, header.has_alpha
    )


def _probe_video(path: Path) -> MediaInfo:
    # Copying the packets to nowhere counts them without decoding; the same run prints the stream's description.
    command = [ffmpeg.executable(), "-hide_banner", "-nostdin", *ffmpeg.input_arguments(path)]
    command += ["-map", "0:V:0", "-c", "copy", "-f", "null", "-progress", "pipe:1", "-nostats", "-"]
    run = subprocess.run(command, capture_output=True)
    log, progress = run.stderr.decode(errors="replace"), run.stdout.decode(errors="replace")
    if damage := ffmpeg.find_damage(log):
        raise DataError(f"{path}: the file is cut short or damaged ({damage})")
    if "matches no streams" in log:
        raise DataError(f"{path}: holds no video stream, or is cut short within its header")
    if run.returncode != 0:
        raise DataError(f"{path}: not a video that can be read, or cut short:\n{ffmpeg.last_lines(log, 3)}")
    counts = re.findall(r"^frame=\s*(\d+)", progress, re.MULTILINE)
    if not counts or int(counts[-1]) == 0:
        raise DataError(f"{path}: holds no video frames")
    return _parse_stream(path, log.split("Output #0")[0], int(counts[-1]))


def _parse_stream(path: Path, log: str, num_frames: int) -> MediaInfo:
    streams = re.split(r"\n\s*Stream #", log.split("Stream mapping:")[0])[1:]
    videos = [text for text in streams if ": Video: " in text.splitlines()[0] and "(attached pic)" not in text]
    line = videos[0].splitlines()[0].split(": Video: ", 1)[1] if videos else ""
    fields = [field.strip() for field in re.split(r",(?![^(]*\))", line)]
    size = re.search(r"\b(\d+)x(\d+)\b", re.sub(r"\([^)]*\)", "", line))
    if len(fields) < 2 or not size:
        raise DataError(f"{path}: ffmpeg's description of the video stream is not understood: {line or 'none given'}")
    codec, pix_fmt = fields[0].split()[0], fields[1].split("(")[0]
    width, height = int(size.group(1)), int(size.group(2))
    rotation = re.search(r"rotation of (-?[\d.]+) degrees", videos[0])
    if rotation and round(float(rotation.group(1))) % 180 == 90:
        width, height = height, width  # ffmpeg turns the frames upright when it decodes them
    rate = re.search(r"([\d.]+)(k?) fps", line) or re.search(r"([\d.]+)(k?) tbr", line)
    fps = float(rate.group(1)) * (1000 if rate.group(2) else 1) if rate else 0.0
    alpha_tag = re.search(r"alpha_mode\s*:\s*1", videos[0], re.IGNORECASE)
    decoder = _ALPHA_DECODERS.get(codec) if alpha_tag else None
    has_alpha = decoder is not None or bool(_ALPHA_FORMAT.match(pix_fmt))
    return MediaInfo(path, codec, width, height, fps, num_frames, pix_fmt, has_alpha, decoder)
