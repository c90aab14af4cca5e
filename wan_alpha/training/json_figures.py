"""Figures as JSON, which has neither infinity nor NaN: a perfect PSNR is "inf", a figure that was not measured is null.

So in every file of figures: metrics.jsonl, evaluation.json, the manifests of media. evaluation.csv says the same: inf,
and nothing. float() reads both, as it reads the numbers.
"""

import math

INFINITE = "inf"


def json_figures(values: dict) -> dict:
    """A dict of figures, nested ones included, as JSON values."""
    return {name: _json_figure(value) for name, value in values.items()}


def _json_figure(value):
    if isinstance(value, dict):
        return json_figures(value)
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else INFINITE if value > 0 else f"-{INFINITE}"


def read_figure(value):
    """What `json_figures` wrote of one figure; words are left as they are."""
    return float(value) if isinstance(value, str) and value in (INFINITE, f"-{INFINITE}") else value
