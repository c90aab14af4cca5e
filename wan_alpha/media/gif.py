"""GIF: 256 colours, and pixels that are either clear or opaque. For where nothing else is taken."""

from wan_alpha.media.clip_writer import require_rgba
from wan_alpha.media.stream_writer import StreamWriter

OPAQUE_FROM = 128  # alpha levels from this on are drawn, those below are clear


class GifWriter(StreamWriter):
    """Straight RGBA as a GIF. Each frame has a palette of its own, so that no clip is too long for memory.

    Times are in hundredths of a second: 16 frames per second become 6, 6, 6, 7, ... and stay in time.

    Args:
        path: *.gif; fps: frames per second, at most 50 in most players.
        dither: "none", or a pattern of ffmpeg's paletteuse such as "bayer" or "sierra2_4a".
    """

    suffix = ".gif"
    feed = "rgba"

    def __init__(self, path, fps: float = 16.0, dither: str = "bayer"):
        super().__init__(path, fps)
        self.dither = dither

    def encoder_arguments(self):
        palette = "split[all][seen];[seen]palettegen=stats_mode=single:reserve_transparent=1[palette]"
        use = f"[all][palette]paletteuse=new=1:dither={self.dither}:alpha_threshold={OPAQUE_FROM}"
        # Whole frames: differences would need the clear colour for "as before".
        return ["-vf", f"{palette};{use}", "-c:v", "gif", "-gifflags", "-offsetting-transdiff", "-loop", "0"]

    def convert(self, frames):
        return require_rgba(self.path, frames)
