"""Videos with an alpha plane: VP9, ProRes 4444, HEVC."""

from functools import lru_cache

from wan_alpha.errors import ConfigError
from wan_alpha.media import bt709, ffmpeg
from wan_alpha.media.clip_writer import require_rgba
from wan_alpha.media.stream_writer import StreamWriter


class WebmAlphaWriter(StreamWriter):
    """Straight RGBA as VP9 with an alpha plane: a transparent video for browsers.

    Alternate reference frames are off, because they break the alpha stream. Odd sizes are stored as they are.

    Args:
        path: *.webm; fps: frames per second.
        crf: quality of colour and alpha, 0 (best) to 63.
    """

    suffix = ".webm"
    feed = "rgba"

    def __init__(self, path, fps: float = 16.0, crf: int = 12):
        super().__init__(path, fps)
        self.crf = crf

    def encoder_arguments(self):
        codec = ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-b:v", "0", "-crf", str(self.crf)]
        return ["-vf", bt709.FROM_RGBA, *codec, "-deadline", "good", "-cpu-used", "4", "-row-mt", "1", *bt709.TAGS]

    def convert(self, frames):
        return require_rgba(self.path, frames)


class ProResWriter(StreamWriter):
    """Straight RGBA as ProRes 4444, for editing programs: 10-bit colour, alpha stored without loss.

    Args:
        path: *.mov; fps: frames per second.
        extra_quality: 4444 XQ, a third more data.
    """

    suffix = ".mov"
    feed = "yuva444p10le"
    depth = 16

    def __init__(self, path, fps: float = 16.0, extra_quality: bool = False):
        super().__init__(path, fps)
        self.profile = "4444xq" if extra_quality else "4444"

    def encoder_arguments(self):
        codec = ["-c:v", "prores_ks", "-profile:v", self.profile, "-pix_fmt", self.feed, "-alpha_bits", "16"]
        return ["-vf", bt709.AS_TAGGED, *codec, "-vendor", "apl0", *bt709.TAGS]

    def convert(self, frames):
        return bt709.rgba_to_yuva444p10(require_rgba(self.path, frames))

    def fed_size(self, data):
        return data.shape[2:]


class HevcAlphaWriter(StreamWriter):
    """Straight RGBA as HEVC with an alpha layer: a transparent video for Safari, iOS and macOS.

    Needs an x265 that was built with alpha, in an ffmpeg that gives it the plane. Odd sizes are padded.

    Args:
        path: *.mov; fps: frames per second.
        crf: quality of colour and alpha, 0 (best) to 51.

    Raises:
        ConfigError: this ffmpeg cannot.
    """

    suffix = ".mov"
    feed = "rgba"

    def __init__(self, path, fps: float = 16.0, crf: int = 10):
        super().__init__(path, fps)
        self.crf = crf
        if not hevc_carries_alpha():
            raise ConfigError(
                f"{path}: this ffmpeg ({ffmpeg.executable()}) cannot write HEVC with alpha; it needs version 7.1 or "
                "newer with an x265 built with ENABLE_ALPHA. Choose webm or prores, or name another ffmpeg in "
                "IMAGEIO_FFMPEG_EXE"
            )

    def encoder_arguments(self):
        # hvc1 is the only tag under which Apple's players open HEVC.
        codec = ["-c:v", "libx265", "-pix_fmt", "yuva420p", "-tag:v", "hvc1", "-crf", str(self.crf)]
        codec += ["-x265-params", "log-level=error", "-movflags", "+faststart"]
        return ["-vf", bt709.FROM_RGBA, *codec, *bt709.TAGS]

    def convert(self, frames):
        return bt709.pad_to_even(require_rgba(self.path, frames))


@lru_cache(maxsize=1)
def hevc_carries_alpha() -> bool:
    """Whether this ffmpeg's x265 takes frames with alpha."""
    return ffmpeg.encoder_takes("libx265", "yuva420p")
