"""Curves out of ``metrics.jsonl``: one chart a figure, one line a run."""

MAX_POINTS = 300  # more cannot be told apart on a screen; each is then the mean of its neighbourhood
SIDE_FIGURES = ("epoch", "learning_rate", "gradient_norm", "skipped_updates")
INITIAL, VALIDATION = "initial_validation_", "validation_"


def charts(runs):
    """Every figure that some training logged.

    Args:
        runs: list of Run. Trainings that stand in the same place of their runs share charts.

    Returns:
        list of dicts: title; side, whether it is only asked for now and then; series of (name, points), points being
        (step, value) pairs. The loss comes first, then what validations found, then the loss's terms.
    """
    collected = {}
    for run in runs:
        for training in run.trainings:
            for figure, points in _figures(training.metrics).items():
                collected.setdefault((training.name, figure), []).append({"name": run.label, "points": thin(points)})
    charts = [
        {"title": f"{place}: {figure}" if place else figure, "side": figure in SIDE_FIGURES, "series": series}
        for (place, figure), series in collected.items()
    ]
    return sorted(charts, key=_rank)


def _rank(chart):
    figure = chart["title"].rpartition(": ")[2]
    return chart["side"], 0 if figure == "loss" else 1 if figure.startswith("validation") else 2


def _figures(rows):
    """Figure -> list of (step, value), two or more of them; a validation before training is step 0."""
    figures = {}
    for row in rows:
        for name, value in row.items():
            if name == "step" or not isinstance(value, int | float):
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
