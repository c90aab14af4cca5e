"""Tables out of ``evaluation.json``, whatever figures it holds: they are recognised by the names of the field."""

from wan_alpha.evaluation.report_figures import flatten, table

OVERALL = ("mean", "composite", "alpha")
# Not figures: where the files are, and values of single frames.
_NOT_SHOWN = {"name", "pred", "ref", "per_frame", "frames"}
_SMALL_IS_GOOD = ("mad", "mae", "mse", "sad", "grad", "conn", "dtssd", "messddt", "lpips", "flicker", "fringe")
_LARGE_IS_GOOD = ("psnr", "ssim")


def evaluation_tables(runs):
    """The means of every evaluation side by side, and the figures of every clip in the order of its evaluation."""
    overall, clips = [], []
    for run in runs:
        for place, evaluation in run.evaluations:
            heading = [run.label] if len(runs) > 1 else []
            figures = {key: evaluation[key] for key in OVERALL if isinstance(evaluation.get(key), dict)}
            if figures:
                overall.append(([*heading, place or "evaluation"], dict(_figures(figures))))
            for entry in evaluation.get("clips", []):
                values = {key: value for key, value in entry.items() if key not in _NOT_SHOWN}
                clips.append(([*heading, str(entry.get("name", ""))], dict(_figures(values))))
    run = [("run", "", "text")] if len(runs) > 1 else []
    return [
        _table("Evaluation", [*run, ("of", "", "text")], overall),
        _table("Evaluation, clip by clip", [*run, ("clip", "", "text")], clips),
    ]


def _figures(values):
    """Figures by spelled-out names, those of the whole first: what is nested deeper is more special."""
    flat = [(name, value) for name, value in flatten(values) if isinstance(value, int | float | str | None)]
    for name, value in sorted(flat, key=lambda figure: figure[0].count(".")):
        yield name.removeprefix("mean.").replace(".", " ").replace("_", " "), value


def _table(title, columns, rows):
    if not rows:
        return None
    names = list(dict.fromkeys(name for _, figures in rows for name in figures))
    shown = [name for name in names if any(figures.get(name) is not None for _, figures in rows)]
    texts = {name for name in shown if any(isinstance(figures.get(name), str) for _, figures in rows)}
    columns = [*columns, *((name, _unit(name), "text" if name in texts else _kind(name)) for name in shown)]
    return table(title, columns, [[*heading, *(figures.get(name) for name in shown)] for heading, figures in rows])


def _kind(name):
    words = name.lower().split()
    if any(word in _LARGE_IS_GOOD for word in words):
        return "high"
    return "low" if any(word in _SMALL_IS_GOOD for word in words) else "number"


def _unit(name):
    return "dB" if "psnr" in name.lower().split() else ""
