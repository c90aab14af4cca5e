"""Evaluate: figures of clips, against references or without, and the clips beside each other."""

import html
import math

import gradio as gr

from wan_alpha.cli.ui.actions import action, build_recipe, picked
from wan_alpha.evaluation.evaluate import evaluate
from wan_alpha.evaluation.evaluation_files import table_columns
from wan_alpha.evaluation.report import write_report
from wan_alpha.training.recipes import EvaluateRecipe


def add_evaluate_tab(place):
    """The tab's components; call inside gr.Blocks. `place`: a Workplace."""
    pred = gr.Textbox(label="Clips that are judged: path of a file, folder or dataset list", elem_id="evaluate-path")
    reference = gr.Textbox(label="True clips, in any of these forms; empty = judge without", elem_id="evaluate-truth")
    button = gr.Button("Measure", variant="primary", elem_id="evaluate-run")
    told = gr.HTML(elem_id="evaluate-summary")
    table = gr.Dataframe(
        interactive=False, wrap=True, elem_id="evaluate-table", label="Worst clips first", visible=False
    )
    look = gr.HTML(elem_id="evaluate-result")

    def run(pred, reference):
        values = {"pred": picked(None, pred, "clips"), "reference": picked(None, reference, "true clips", False)}
        build_recipe(EvaluateRecipe, output_dir="checked", **values)  # before a folder is made for it
        folder = place.new_folder("evaluate")
        found = evaluate(build_recipe(EvaluateRecipe, output_dir=folder, **values))
        columns = table_columns(found.clips)
        rows = [
            [clip.pair.name, *(_cell(clip.flat.get(name)) for name, _ in columns.values()),
             clip.transparency["collapse"] or ""]
            for clip in found.clips
        ]  # fmt: skip
        files = "<br>".join(html.escape(str(file)) for file in found.files)
        page = write_report([folder], folder / "report", title="evaluation").page
        shown = gr.Dataframe(rows, headers=["clip", *columns, "note"], visible=True)
        return f"<p>{files}</p>", shown, place.frame(page, "report")

    button.click(action(run), [pred, reference], [told, table, look], api_visibility="private")


def _cell(value):
    """A number that the table sorts by; an empty cell where there was nothing to measure."""
    return None if value is None or math.isnan(value) else round(value, 4)
