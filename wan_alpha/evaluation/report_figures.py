"""The report's tables, as plain values that the page draws."""

import math

from wan_alpha.evaluation.report_curves import last_validation
from wan_alpha.training.json_figures import read_figure


def table(title, columns, rows, note=""):
    """A table for the page.

    Args:
        title: its heading; columns: list of (heading, unit, kind), kind "text", "low" or "high" for numbers of which
            small or large ones are good, "number" for neither, "mixed" for figures of several kinds.
        rows: lists of values, None where there is none.
    """
    names = [{"name": name, "unit": unit, "kind": kind} for name, unit, kind in columns]
    return {"title": title, "note": note, "columns": names, "rows": [[_finite(value) for value in row] for row in rows]}


def _finite(value):
    """JSON knows neither infinity nor NaN."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else "∞"


def demo_table(runs):
    """The demo's figures beside what they must reach; None if no run is a demo."""
    rows = []
    for run in runs:
        for figure in run.demo_figures:
            mark = "✓ met" if figure["passed"] else "✗ missed"
            rows.append([run.label, figure["name"], figure["before"], figure["after"], figure["bar"], mark])
    columns = [(name, "", "text") for name in ("run", "figure", "before", "after", "must reach", "")]
    return _without_single_run("Figures of the demo", columns, rows, runs)


def clip_table(runs, clips):
    """What every clip is: size, length, and its shares of clear, semi-transparent and opaque pixels.

    Args:
        clips: list of (run index, ClipSource, PageClip).
    """
    columns = [
        ("run", "", "text"), ("clip", "", "text"), ("seed", "", "number"), ("frames", "", "number"),
        ("size", "pixels", "text"), ("rate", "fps", "number"), ("clear", "%", "number"),
        ("semi-transparent", "%", "number"), ("opaque", "%", "number"), ("alpha of the WebM", "dB", "high"),
    ]  # fmt: skip
    rows = []
    for run_index, source, clip in clips:
        shares = [100 * getattr(clip.coverage, name) for name in ("clear", "semi_transparent", "opaque")]
        webm = source.settings.get("webm_alpha_error", {}).get("psnr")
        seed = source.settings.get("recipe", {}).get("seed")
        size = f"{clip.width}×{clip.height}"
        rows.append([runs[run_index].label, source.name, seed, clip.num_frames, size, clip.fps, *shares, webm])
    used = [index for index in range(len(columns)) if any(row[index] is not None for row in rows)]
    columns, rows = [columns[index] for index in used], [[row[index] for index in used] for row in rows]
    return _without_single_run("Clips", columns, rows, runs)


def validation_table(runs):
    """Reconstruction figures: of `validate-vae`, and of the last validation within each training."""
    columns = [("run", "", "text"), ("of", "", "text")]
    columns += [("RGB PSNR", "dB", "high"), ("RGB MAE", "levels of 255", "low"), ("RGB SSIM", "", "high")]
    columns += [("alpha PSNR", "dB", "high"), ("alpha MAE", "levels of 255", "low"), ("alpha SSIM", "", "high")]
    names = [f"{stream}_{figure}" for stream in ("rgb", "alpha") for figure in ("psnr", "mae", "ssim")]
    rows = []
    for run in runs:
        for name, content in run.validations:
            streams = {stream: content.get(stream) or {} for stream in ("rgb", "alpha")}
            figures = {
                f"{stream}_{key}": read_figure(value) for stream, of in streams.items() for key, value in of.items()
            }
            rows.append([run.label, name or "validation", *(figures.get(name) for name in names)])
        for training in run.trainings:
            figures = last_validation(training.metrics)
            if any(name in figures for name in names):
                what = f"{training.name} at step {figures['step']}".strip()
                rows.append([run.label, what, *(figures.get(name) for name in names)])
    return _without_single_run("Reconstruction", columns, rows, runs, "RGB is compared over grey.")


def _without_single_run(title, columns, rows, runs, note=""):
    if not rows:
        return None
    if len(runs) == 1:
        columns, rows = columns[1:], [row[1:] for row in rows]
    return table(title, columns, rows, note)
