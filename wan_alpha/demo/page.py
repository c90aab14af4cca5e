"""The demo's ``index.html``: one file that opens from disk, without a server or a network."""

import base64
import json
from dataclasses import asdict
from importlib.resources import files

from wan_alpha.demo.material import FPS
from wan_alpha.training.run_folder import read_metrics

SMOOTHING = 10  # steps averaged to one point, so that a curve shows its trend


def write_page(out, clips, figures):
    """Write ``index.html`` into ``out``: the generated clips over a background of one's choice, curves, figures.

    Args:
        out: the demo's folder; clips: list of GeneratedClip; figures: list of Figure.

    Returns:
        the page's path.
    """
    data = {
        "summary": (
            "Both stages were trained on this machine a moment ago. The clips are straight RGBA: choose what lies "
            "under them, look at their alpha, step with the arrow keys."
        ),
        "fps": FPS,
        "clips": [
            {
                "prompt": clip.prompt,
                "seed": clip.seed,
                "coverage": asdict(clip.coverage),
                "frames": _frames(clip.folder),
            }
            for clip in clips
        ],
        "figures": [asdict(figure) for figure in figures],
        "charts": _charts(out),
        "stills": [_data_uri(path) for path in sorted((out / "validation").glob("lemur_comparison_*.png"))],
    }
    template = (files("wan_alpha") / "assets" / "demo_page.html").read_text(encoding="utf-8")
    # "</" inside a script element would end it.
    text = template.replace("__DATA__", json.dumps(data).replace("</", "<\\/"))
    page = out / "index.html"
    page.write_text(text, encoding="utf-8")
    return page


def _frames(folder):
    return [_data_uri(path) for path in sorted((folder / "frames").glob("*.png"))]


def _data_uri(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _curve(rows, name):
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    groups = [points[start : start + SMOOTHING] for start in range(0, len(points), SMOOTHING)]
    return [[group[-1][0], sum(value for _, value in group) / len(group)] for group in groups]


def _charts(out):
    stage1, stage2 = read_metrics(out / "stage1"), read_metrics(out / "stage2")
    return [
        {
            "title": "Stage 1: L1 of colour (soft render) and alpha",
            "series": [
                {"name": "alpha", "points": _curve(stage1, "l1_alpha")},
                {"name": "colour", "points": _curve(stage1, "l1_rgb_soft")},
            ],
        },
        {"title": "Stage 2: loss", "series": [{"name": "loss", "points": _curve(stage2, "loss")}]},
    ]  # fmt: skip
