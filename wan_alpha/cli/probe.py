"""``wan-alpha probe``: what a media file holds and what becomes of its alpha when it is decoded."""

import json
from itertools import pairwise

from rich.console import Console
from rich.table import Table

from wan_alpha.data.manifest import find_matte_beside
from wan_alpha.errors import ConfigError
from wan_alpha.media.alpha_source import AlphaSource
from wan_alpha.media.examine import examine
from wan_alpha.media.probe import probe
from wan_alpha.training.progress import StepProgress

_BAR = 40  # characters of the longest bar of the histogram
_BINS = 8


def probe_file(recipe):
    """Examine a ProbeRecipe's file and print what was found; returns the Examination. Errors as examine_file."""
    found, matte = examine_file(recipe)
    if recipe.print_json:
        print(json.dumps(found.as_dict() | {"matte": str(matte) if matte else None}, indent=1))
    else:
        _print_table(found, matte)
    return found


def examine_file(recipe):
    """Examine a ProbeRecipe's file; returns the Examination, and the matte that was used or None.

    Raises:
        ConfigError: matte and packing together.
        DataError: the file cannot be read.
    """
    if recipe.matte is not None and recipe.packing != "none":
        raise ConfigError("matte and packing exclude each other: alpha is in a file of its own or in the picture")
    info = probe(recipe.file)
    matte = recipe.matte
    if matte is None and recipe.packing == "none" and not info.has_alpha:
        matte = find_matte_beside(recipe.file)
    source = AlphaSource(recipe.file, matte, recipe.packing)
    total = info.num_frames if recipe.frames is None else min(recipe.frames, info.num_frames)
    with StepProgress("decoding", total, unit="frames", enabled=not recipe.print_json) as bar:
        return examine(source, recipe.frames, bar.update), matte


def describe(found, matte):
    """What was found as {name: text}, in the order of the table."""
    info, shares = found.info, found.shares
    return {
        "file": str(info.path),
        "codec": f"{info.codec}, {info.pix_fmt}, {info.bit_depth} bits per channel",
        "colour": f"matrix {info.color_matrix or 'not said'}, range {info.color_range or 'not said'}",
        "size": f"{info.width}x{info.height}" + (f", turned by {info.rotation} degrees" if info.rotation else ""),
        "frames": f"{info.num_frames}, {_rate(info)}, {info.duration:.3f} s",
        "alpha": _alpha(info, matte),
        "decoded": _survival(found),
        "clear": f"{shares['clear']:.2%}",
        "semi": f"{shares['semi']:.2%}",
        "opaque": f"{shares['opaque']:.2%}",
        "colour is": f"{found.state.state} ({found.state.evidence})",
    }


def _print_table(found, matte):
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in describe(found, matte).items():
        table.add_row(name, value)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    if found.alpha_survives is not None:
        for line in histogram(found.alpha_counts):
            console.print(line)
    for warning in found.warnings:
        console.print(f"warning: {warning}")


def _rate(info):
    if not info.fps:
        return "no frame rate"
    return f"{info.fps:.6g} fps" + (" on average, varying" if info.is_variable_rate else "")


def _alpha(info, matte):
    if matte is not None:
        return f"in the matte {matte}"
    if not info.has_alpha:
        return "none"
    return "a plane of the file" + (f", decoded by {info.decoder} (others drop it)" if info.decoder else "")


def _survival(found):
    if found.alpha_survives is None:
        return f"{found.num_examined} frames; no alpha to survive"
    low, high = found.alpha_range
    levels = sum(1 for count in found.alpha_counts if count)
    state = "alpha survives" if found.alpha_survives else "alpha does not survive"
    return f"{found.num_examined} frame(s); {state}: {levels} level(s) from {low} to {high}"


def histogram(counts):
    """Lines of a bar chart: clear, the semi-transparent levels in equal bins, opaque."""
    edges = [round(1 + 254 * place / _BINS) for place in range(_BINS + 1)]
    bins = [("0", counts[0])]
    bins += [(f"{a}-{b - 1}", sum(counts[a:b])) for a, b in pairwise(edges)]
    bins.append(("255", counts[255]))
    largest, total = max(count for _, count in bins), sum(counts)
    for name, count in bins:
        yield f"  {name:>8} {'#' * -(-_BAR * count // largest):<{_BAR}} {count / total:.2%}"
