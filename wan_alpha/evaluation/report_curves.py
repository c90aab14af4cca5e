"""Curves out of ``metrics.jsonl``: one chart a figure, one line a run."""

import math

MAX_POINTS = 300  # more cannot be told apart on a screen; each is then the mean of its neighbourhood
# Beside the loss and the validations, whose charts stand open, all else is a click away.
MAIN_FIGURES = ("loss",)
INITIAL, VALIDATION = "initial_validation_", "validation_"


def charts(runs):
    """Every figure that some training logged.

    Args:
        runs: list of Run. Trainings that stand in the same place of their runs share charts.

    Returns:
        list of dicts: title; side, whether it is only asked for now and then; series of (name, points), points being
        (step, value) pairs. The loss comes first, then what validations found; a loss's terms and the rest are side.
    """
    collected = {}
    for run in runs:
        for training in run.trainings:
            for figure, points in _figures(training.metrics).items():
                collected.setdefault((training.name, figure), []).append({"name": run.label, "points": thin(points)})
    charts = [
        {"title": f"{place}: {figure}" if place else figure, "side": _is_side(figure), "series": series}
        for (place, figure), series in collected.items()
    ]
    return sorted(charts, key=lambda chart: (chart["side"], "validation" in chart["title"]))


def _is_side(figure):
    return figure not in MAIN_FIGURES and not figure.startswith("validation")


def _figures(rows):
    """Figure -> list of (step, value), two or more of them; a validation before training is step 0."""
    figures = {}
    for row in rows:
        for name, value in row.items():
            if name == "step" or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            is_initial = name.startswith(INITIAL)
            shown = "validation " + name.removeprefix(INITIAL) if is_initial else name
            if name.startswith(VALIDATION):
                shown = "validation " + name.removeprefix(VALIDATION)
            figures.setdefault(shown, []).append((0 if is_initial else row["step"], value))
    return {name: points for name, points in figures.items() if len(points) > 1}


def thin(points):
    """At most MAX_POINTS points: means of equally long stretches, each at its stretch's last step."""
    length = -(-len(points) // MAX_POINTS)
    stretches = [points[start : start + length] for start in range(0, len(points), length)]
    return [[stretch[-1][0], sum(value for _, value in stretch) / len(stretch)] for stretch in stretches]


def last_validation(rows):
    """The last row's validation figures by their bare names, and its step; empty if there was no validation."""
    for row in reversed(rows):
        figures = {name.removeprefix(VALIDATION): value for name, value in row.items() if name.startswith(VALIDATION)}
        if figures:
            return {**figures, "step": row["step"]}
    return {}
