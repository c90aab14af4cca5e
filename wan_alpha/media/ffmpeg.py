"""How ffmpeg is found and called, and how its failures read."""

import re
import subprocess
from functools import lru_cache
from pathlib import Path

# Containers that hold frames themselves. Playlists and concat scripts are left out on purpose: a dataset file must not
# be able to make ffmpeg open other files or addresses.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpeg,mpegts,ogg,asf,nut,ivf,yuv4mpegpipe"

# What ffmpeg says about a file that is cut short or has wrong bytes in it, often with exit code 0.
_DAMAGE = re.compile(
    r"^\[[^\]]* @ 0x[0-9a-f]+\] .*"
    r"(prematurely|partial file|corrupt|truncat|crc mismatch|concealing|error while decoding)",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"\[[^\]]* @ 0x[0-9a-f]+\] ")
# What led up to a failure, before its reason; and lines that only say that, or describe the file.
_STEP = re.compile(r"^Error (opening|submitting|while|sending|initializing)[^:]*: ")
_COURSE = re.compile(r"^(Error (opening|parsing) (in|out)put file|Input #|Conversion failed|Task |Terminating|Format )")


@lru_cache(maxsize=1)
def executable() -> str:
    """Path of the ffmpeg program that imageio-ffmpeg ships (or that IMAGEIO_FFMPEG_EXE names)."""
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def encoder_takes(encoder: str, pix_fmt: str) -> bool:
    """Whether the program has this encoder, and the encoder this pixel format."""
    command = [executable(), "-hide_banner", "-nostdin", "-h", f"encoder={encoder}"]
    listed = subprocess.run(command, capture_output=True).stdout.decode(errors="replace")
    formats = re.search(r"Supported pixel formats:(.*)", listed)
    return formats is not None and pix_fmt in formats.group(1).split()


def file_argument(path) -> str:
    """`path` as ffmpeg must see it, so that no file name is read as an option, a pattern's protocol or an address."""
    return f"file:{Path(path).absolute()}"


def input_arguments(path, decoder: str | None = None) -> list[str]:
    """Arguments that open `path`, a local file in one of CONTAINERS, with `decoder` where the default one is wrong."""
    guards = ["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS]
    return guards + (["-c:v", decoder] if decoder else []) + ["-i", file_argument(path)]


def find_damage(log: str) -> str | None:
    """The first line of ffmpeg's log that speaks of a damaged file, or None.

    Only lines of a component of ffmpeg count: others may quote the file's own name, whatever that says.
    """
    return next((_PREFIX.sub("", line).strip() for line in log.splitlines() if _DAMAGE.match(line)), None)


def reason(log: str, path) -> str:
    """Why ffmpeg failed, in its own words: what its log says of the file, once each, and nothing of its own course.

    Args:
        path: the file it was about, as it is to be named.
    """
    lines = [_PREFIX.sub("", line).strip() for line in log.splitlines()]
    lines = [_STEP.sub("", line).replace(file_argument(path), str(path)) for line in lines]
    said = [line for line in dict.fromkeys(lines) if line and not _COURSE.match(line)]
    return f"ffmpeg: {'; '.join(said[-3:])}" if said else "ffmpeg gave no reason"
