"""Every format that clips are written in, by name. Light: nothing is imported before a writer is opened."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from wan_alpha.errors import ConfigError


@dataclass(frozen=True)
class OutputFormat:
    """One format.

    Attributes:
        name: what `--format` calls it; summary: what it is for.
        suffix: of its files, "" for a folder of frames; clip_name: its name in a generated clip's folder.
        writer: "module:class"; options: that the class is given.
        alpha: where alpha is found when the output is read back: "plane" (an alpha channel), "matte" (the grey value),
            "below" (the lower half), "cells" (of a sprite sheet), "archive" (PNGs in a zip), or None for opaque ones.
        depth: bits of a channel that it is fed, 8 or 16.
        is_binary: pixels are clear or opaque, nothing between.
        max_error: largest error of alpha in levels of 255 that is no loss; None where min_psnr is the measure.
        min_psnr: dB of alpha under which it counts as lost.
        embeds: the writer's option that takes prompt and settings, "texts" or "xmp", or None.
    """

    name: str
    summary: str
    suffix: str
    clip_name: str
    writer: str
    alpha: str | None = "plane"
    options: dict = field(default_factory=dict)
    depth: int = 8
    is_binary: bool = False
    max_error: float | None = None
    min_psnr: float = 25.0
    embeds: str | None = None

    @property
    def is_lossless(self) -> bool:
        """Alpha comes back exactly."""
        return self.max_error == 0


_PNG, _VIDEO, _PLAIN = "wan_alpha.media.png_sequence", "wan_alpha.media.alpha_video", "wan_alpha.media.write"
_EXACT = {"max_error": 0}
_PNGS = {**_EXACT, "embeds": "texts"}

FORMATS = {
    one.name: one
    for one in (
        OutputFormat("png", "numbered PNGs, 8 bits", "", "frames", f"{_PNG}:PngSequenceWriter", **_PNGS),
        OutputFormat(
            "png16", "numbered PNGs, 16 bits", "", "frames16", f"{_PNG}:PngSequenceWriter", options={"depth": 16},
            depth=16, **_PNGS,
        ),
        OutputFormat("zip", "the PNGs in one zip", ".zip", "frames.zip", f"{_PNG}:PngZipWriter", "archive", **_PNGS),
        OutputFormat(
            "zip16", "the 16-bit PNGs in one zip", ".zip", "frames16.zip", f"{_PNG}:PngZipWriter", "archive",
            {"depth": 16}, depth=16, **_PNGS,
        ),
        OutputFormat("still", "one frame as PNG", ".png", "still.png", f"{_PNG}:StillWriter", **_PNGS),
        OutputFormat(
            "prores", "ProRes 4444, for editing programs", ".mov", "video.mov", f"{_VIDEO}:ProResWriter", depth=16,
            max_error=1,
        ),
        OutputFormat(
            "prores_xq", "ProRes 4444 XQ", ".mov", "video_xq.mov", f"{_VIDEO}:ProResWriter",
            options={"extra_quality": True}, depth=16, max_error=1,
        ),
        OutputFormat("webm", "VP9 with alpha, for browsers", ".webm", "video.webm", f"{_VIDEO}:WebmAlphaWriter"),
        OutputFormat(
            "hevc", "HEVC with alpha, for Safari and iOS", ".mov", "video_hevc.mov", f"{_VIDEO}:HevcAlphaWriter"
        ),
        OutputFormat("ffv1", "FFV1 in Matroska, lossless", ".mkv", "video.mkv", f"{_PLAIN}:LosslessWriter", **_EXACT),
        OutputFormat(
            "ffv1_16", "FFV1 with 16 bits", ".mkv", "video16.mkv", f"{_PLAIN}:LosslessWriter",
            options={"depth": 16}, depth=16, **_EXACT,
        ),
        OutputFormat(
            "apng", "animated PNG, lossless", ".apng", "video.apng", "wan_alpha.media.apng:ApngWriter", **_PNGS
        ),
        OutputFormat(
            "webp", "animated WebP, alpha exact", ".webp", "video.webp", "wan_alpha.media.webp:WebpWriter",
            embeds="xmp", **_EXACT,
        ),
        OutputFormat(
            "webp_lossless", "animated WebP, all exact", ".webp", "video_lossless.webp",
            "wan_alpha.media.webp:WebpWriter", options={"quality": None}, embeds="xmp", **_EXACT,
        ),
        OutputFormat(
            "gif", "256 colours, clear or opaque", ".gif", "video.gif", "wan_alpha.media.gif:GifWriter",
            is_binary=True, **_EXACT,
        ),
        OutputFormat(
            "stacked", "h264, colour above alpha, with its player", ".mp4", "stacked.mp4",
            "wan_alpha.media.stacked:StackedAlphaWriter", "below",
        ),
        OutputFormat(
            "sprites", "sprite sheet and JSON, for game engines", ".png", "sprites.png",
            "wan_alpha.media.sprite_sheet:SpriteSheetWriter", "cells", **_PNGS,
        ),
        OutputFormat("matte", "alpha as grey h264", ".mp4", "alpha.mp4", f"{_PLAIN}:MatteWriter", "matte"),
        OutputFormat("rgb", "straight colour as h264, opaque", ".mp4", "rgb.mp4", f"{_PLAIN}:OpaqueWriter", None),
        OutputFormat(
            "preview", "over a background as h264, opaque", ".mp4", "preview.mp4",
            "wan_alpha.media.preview:PreviewWriter", None,
        ),
    )
}  # fmt: skip

# What a suffix means where no format is named. None for .mp4: which of its formats was meant is not to be guessed.
_BY_SUFFIX = {"": "png", ".zip": "zip", ".mov": "prores", ".webm": "webm", ".mkv": "ffv1", ".apng": "apng",
              ".webp": "webp", ".gif": "gif", ".png": "sprites"}  # fmt: skip


def find_format(name: str) -> OutputFormat:
    """The format of that name.

    Raises:
        ConfigError: there is none; the message lists them.
    """
    if name not in FORMATS:
        raise ConfigError(f"format {name!r} is unknown: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def format_for(path, name: str | None = None, is_still: bool = False) -> OutputFormat:
    """The format to write `path` in: the named one, else what its suffix says.

    Args:
        is_still: there is one frame, so that a .png is a still and no sprite sheet.

    Raises:
        ConfigError: no such format, a suffix that is not the format's, or one that does not say enough.
    """
    suffix = Path(path).suffix.lower()
    if name is not None:
        chosen = find_format(name)
        if chosen.suffix != suffix and (chosen.suffix or suffix in _BY_SUFFIX or suffix == ".mp4"):
            wanted = f"{chosen.suffix} files" if chosen.suffix else "a folder, whose name has no suffix"
            raise ConfigError(f"{path}: format {name} writes {wanted}; name the output so or choose another format")
        return chosen
    if suffix == ".png" and is_still:
        return FORMATS["still"]
    if suffix not in _BY_SUFFIX:
        fitting = [one.name for one in FORMATS.values() if one.suffix == suffix]
        if fitting:
            raise ConfigError(f"{path}: a {suffix} can be {', '.join(fitting)}; say which with --format")
        known = ", ".join(one for one in _BY_SUFFIX if one)
        raise ConfigError(f"{path}: no format for the suffix {suffix!r}; known: none (a folder), .mp4, {known}")
    return FORMATS[_BY_SUFFIX[suffix]]


def open_writer(path, output_format: OutputFormat, fps: float, premultiplied: bool = False, **options):
    """A ClipWriter for `path`.

    Args:
        premultiplied: store colour multiplied by alpha.
        options: more of the writer's own.

    Raises:
        ConfigError: what the writer refuses, or premultiplied for a format that has no use for it.
    """
    if premultiplied and (output_format.alpha in (None, "matte") or output_format.is_binary):
        raise ConfigError(f"premultiplied has no effect on the format {output_format.name}; leave it out")
    module, _, name = output_format.writer.partition(":")
    writer = getattr(import_module(module), name)(path, fps, **output_format.options, **options)
    writer.premultiplied = premultiplied
    return writer
