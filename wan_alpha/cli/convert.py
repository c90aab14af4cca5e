"""``wan-alpha convert``: one clip into another format, with a progress bar, and what became of its alpha."""

from wan_alpha.errors import ConfigError
from wan_alpha.media.alpha_source import AlphaSource
from wan_alpha.media.backgrounds import parse_background
from wan_alpha.media.convert import convert_clip, describe_input
from wan_alpha.media.formats import format_for
from wan_alpha.media.outputs import manifest_path
from wan_alpha.training.progress import StepProgress


def convert(recipe):
    """Convert a ConvertRecipe's clip; returns the ConvertedClip.

    Raises:
        ConfigError: a format or background that does not exist, or options without effect.
        DataError: reading or writing failed, or the output lost its alpha.
    """
    source = AlphaSource(recipe.source, recipe.matte, recipe.packing, recipe.source_state, recipe.matte_range)
    if source.matte is not None and source.packing != "none":
        raise ConfigError("matte and packing exclude each other: alpha is in a file of its own or in the picture")
    info = describe_input(source)
    output_format = format_for(recipe.output, recipe.format, info.is_still or recipe.num_frames == 1)
    background = parse_background(recipe.background)
    with StepProgress("converting", recipe.num_frames or info.num_frames - recipe.start, unit="frames") as bar:
        converted = convert_clip(
            source, recipe.output, output_format, fps=recipe.fps, start=recipe.start, num_frames=recipe.num_frames,
            premultiplied=recipe.premultiplied, background=background, prompt=recipe.prompt, progress=bar.update,
            verified=StepProgress("verifying", 1, enabled=False, unit="files").update,
        )  # fmt: skip
    written = converted.written
    state = ", premultiplied" if written.premultiplied else ""
    print(f"{written}; {written.num_frames} frames of {written.width}x{written.height}, {written.fps:g} fps{state}")
    print(f"manifest: {manifest_path(written.path)}")
    for note in converted.notes:
        print(f"note: {note}")
    return converted
