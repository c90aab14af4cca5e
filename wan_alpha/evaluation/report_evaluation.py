"""Tables out of ``evaluation.json``, whatever figures it holds: they are recognised by the names of the field."""

from wan_alpha.evaluation.report_figures import table
from wan_alpha.evaluation.report_settings import flatten
from wan_alpha.training.json_figures import read_figure

OVERALL = ("mean", "alpha", "transparency", "composite", "regions")
# Not figures: where the files are, and values of single frames.
_NOT_SHOWN = {"name", "pred", "ref", "pred_matte", "ref_matte", "num_frames", "per_frame", "frames"}
_SMALL_IS_GOOD = ("mad", "mae", "mse", "sad", "grad", "conn", "dtssd", "messddt", "lpips", "flicker", "fringe")
_LARGE_IS_GOOD = ("psnr", "ssim")


def evaluation_tables(runs):
    """The figures over all clips, a column an evaluation; those of every clip, in the order of its evaluation; and,
    apart, what each background and each region adds to them."""
    overall, clips = {}, []
    for run in runs:
        heading = [run.label] if len(runs) > 1 else []
        for place, evaluation in run.evaluations:
            figures = {key: evaluation[key] for key in OVERALL if isinstance(evaluation.get(key), dict)}
            if figures:
                overall[" / ".join((*heading, place or "evaluation"))] = dict(_figures(figures))
            for entry in evaluation.get("clips", []):
                values = {key: value for key, value in entry.items() if key not in _NOT_SHOWN}
                clips.append(([*heading, str(entry.get("name", ""))], values))
    columns = [*([("run", "", "text")] if len(runs) > 1 else []), ("clip", "", "text")]
    parts = [[(names, dict(_figures(values, special))) for names, values in clips] for special in (False, True)]
    return [
        _overall_table(overall),
        _clip_table("Evaluation, clip by clip", columns, parts[0]),
        _clip_table("Evaluation, clip by clip: backgrounds and regions", columns, parts[1]),
    ]


def _figures(values, special=None):
    """Yield (spelled-out name, value), the less nested first; `special` keeps those of single backgrounds and regions,
    or all others."""
    flat = [
        (name, read_figure(value)) for name, value in flatten(values) if isinstance(value, int | float | str | None)
    ]
    for name, value in sorted(flat, key=lambda figure: figure[0].count(".")):
        if special is None or special == (name.count(".") > 1):
            yield name.replace("mean.", "").replace(".", " ").replace("_", " "), value


def _overall_table(evaluations):
    """A row a figure: a hundred columns would be nothing to read."""
    if not evaluations:
        return None
    good = {"high": "large", "low": "small", "number": ""}
    names = dict.fromkeys(name for figures in evaluations.values() for name in figures)
    columns = [("figure", "", "text"), ("good is", "", "text"), *((name, "", "mixed") for name in evaluations)]
    rows = [[name, good[_kind(name)], *(of.get(name) for of in evaluations.values())] for name in names]
    return table("Evaluation", columns, rows)


def _clip_table(title, columns, rows):
    names = list(dict.fromkeys(name for _, figures in rows for name in figures))
    shown = [name for name in names if any(figures.get(name) is not None for _, figures in rows)]
    if not shown:
        return None
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
