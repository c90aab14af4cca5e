"""What an evaluation leaves behind: ``evaluation.json``, ``evaluation.csv``, and a table to look at."""

import csv
import json
import math

from rich import box
from rich.table import Table

from wan_alpha.evaluation.figure_names import TRANSPARENCY, mean_figure
from wan_alpha.metrics.regions import FRAME
from wan_alpha.training.json_figures import json_figures

JSON_FILE, CSV_FILE = "evaluation.json", "evaluation.csv"
SHOWN_CLIPS = 20
# Column -> figure, digits.
REFERENCE_COLUMNS = {
    "MAD": ("alpha_mad", 2), "edge": ("edge_alpha_mad", 2), "Grad": ("alpha_grad", 2), "Conn": ("alpha_conn", 2),
    "dtSSD": ("alpha_dtssd", 2), "PSNR": ("alpha_psnr", 2), "SSIM": ("alpha_ssim", 4), "seen dB": ("composite_psnr", 2),
}  # fmt: skip
TRANSPARENCY_COLUMNS = {
    "clear": ("clear", 3), "semi": ("semi_transparent", 3), "opaque": ("opaque", 3), "border": ("border_clear", 3),
    "flicker": ("flicker", 2), "edge px": ("edge_width", 2), "fringe": ("colour_fringe", 3),
}  # fmt: skip
REFERENCE_NOTE = "edge: MAD in the edge band; PSNR, SSIM: of alpha; seen: PSNR of composites"
TRANSPARENCY_NOTE = "border: share of it that is clear; fringe: part of a background left in the edge's colour"


def mean_of_clips(clips) -> dict:
    """The figures of `ReferenceMeter.means` over clips: region -> {"mean", "composite", "alpha"}."""

    def mean(name, parts):
        if isinstance(parts[0], dict):
            names = dict.fromkeys(key for part in parts for key in part)
            return {key: mean(key, [part[key] for part in parts if key in part]) for key in names}
        return mean_figure(name, parts)

    return mean("", [clip.reference for clip in clips])


def clip_record(clip) -> dict:
    """A clip's entry in evaluation.json."""
    files = {}
    for key, row in (("pred", clip.pair.pred), ("ref", clip.pair.reference)):
        if row is not None:
            files[key] = str(row.foreground)
            if row.matte is not None:
                files[f"{key}_matte"] = str(row.matte)
    record = {"name": clip.pair.name, **files, "num_frames": clip.pair.info.num_frames}
    if clip.reference is not None:
        record |= by_region(clip.reference)
    return json_figures(record | {"transparency": clip.transparency})


def by_region(figures) -> dict:
    """The frame's figures at the top, as the field writes them, and those of regions below `regions`."""
    regions = {region: of_region for region, of_region in figures.items() if region != FRAME}
    return {**figures[FRAME], **({"regions": regions} if regions else {})}


def write_json(folder, clips, overall):
    """Write evaluation.json: `mean`, `composite`, `alpha`, `regions`, `transparency` over all clips, then `clips`.

    Numbers as in `json_figures`.
    """
    path = folder / JSON_FILE
    content = {**json_figures(overall), "clips": [clip_record(clip) for clip in clips]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def write_csv(folder, clips):
    """Write evaluation.csv: a line for each clip, its frame empty, followed by its frames, counted from 0."""
    path = folder / CSV_FILE
    names = list(dict.fromkeys(name for clip in clips for name in (*clip.flat, *clip.frames)))
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip", "frame", *names, "fringe_background", "collapse"])
        for clip in clips:
            words = [clip.transparency[name] or "" for name in ("fringe_background", "collapse")]
            writer.writerow([clip.pair.name, "", *(_cell(clip.flat.get(name)) for name in names), *words])
            for frame in range(clip.pair.info.num_frames):
                values = (clip.frames[name][frame] if name in clip.frames else None for name in names)
                writer.writerow([clip.pair.name, frame, *map(_cell, values), "", ""])
    return path


def _cell(value):
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


def table_columns(clips) -> dict[str, tuple[str, int]]:
    """What of the clips' figures is shown in a table: heading -> (flat name, digits)."""
    return REFERENCE_COLUMNS if clips[0].reference is not None else TRANSPARENCY_COLUMNS


def evaluation_table(clips, overall) -> Table:
    """The clips in their order, the first SHOWN_CLIPS of them, and the mean of all."""
    columns = table_columns(clips)
    note = REFERENCE_NOTE if columns is REFERENCE_COLUMNS else TRANSPARENCY_NOTE
    table = Table(title="Evaluation, worst clips first", caption=note, box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("clip", overflow="fold", min_width=12)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for clip in clips[:SHOWN_CLIPS]:
        cells = (_shown(clip.flat.get(name, math.nan), digits) for name, digits in columns.values())
        table.add_row(clip.pair.name, *cells, clip.transparency["collapse"] or "")
    if len(clips) > SHOWN_CLIPS:
        table.add_row(f"... {len(clips) - SHOWN_CLIPS} more", *[""] * len(columns), "")
    table.add_section()
    collapsed = sum(clip.transparency["collapse"] is not None for clip in clips)
    cells = (_shown(overall.get(name, math.nan), digits) for name, digits in columns.values())
    table.add_row(f"mean of {len(clips)}", *cells, f"{collapsed} collapsed" if collapsed else "")
    return table


def _shown(value, digits):
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def mean_transparency(clips) -> dict:
    """Means of the figures without a reference, and how many clips' transparency collapsed, by its name."""
    means = {name: mean_figure(name, [clip.transparency[name] for clip in clips]) for name in TRANSPARENCY}
    names = [clip.transparency["collapse"] for clip in clips]
    return means | {"collapse": {name: names.count(name) for name in dict.fromkeys(names) if name is not None}}
