"""Probe: what a file holds and what becomes of its alpha."""

import html

import gradio as gr

from wan_alpha.cli.probe import describe, examine_file, histogram
from wan_alpha.cli.ui.actions import action, build_recipe, file_picker, picked
from wan_alpha.media.packed import PACKINGS
from wan_alpha.training.recipes import ProbeRecipe


def add_probe_tab():
    """The tab's components; call inside gr.Blocks."""
    upload, typed = file_picker("File or clip", "probe")
    with gr.Accordion("Alpha in another file, or in half of the picture", open=False):
        matte_upload, matte_typed = file_picker("Matte of a pair", "probe-matte")
        packing = gr.Dropdown(list(PACKINGS), value="none", label="Half of the picture that holds alpha")
    frames = gr.Number(16, label="Frames to decode, spread over the clip; empty = all", precision=0)
    button = gr.Button("Probe", variant="primary", elem_id="probe-run")
    table = gr.Dataframe(
        headers=["what", "found"], interactive=False, wrap=True, label="What was found", elem_id="probe-table",
        column_widths=["110px", "auto"],
    )  # fmt: skip
    levels = gr.HTML(label="Alpha levels", elem_id="probe-levels")

    def run(upload, typed, matte_upload, matte_typed, packing, frames):
        recipe = build_recipe(
            ProbeRecipe, file=picked(upload, typed, "file"), packing=packing,
            matte=picked(matte_upload, matte_typed, "matte", required=False),
        ).model_copy(update={"frames": None})  # fmt: skip
        if frames is not None:
            recipe = build_recipe(ProbeRecipe, **(recipe.model_dump() | {"frames": frames}))
        found, matte = examine_file(recipe)
        rows = [[name, text] for name, text in describe(found, matte).items()]
        rows += [["warning", warning] for warning in found.warnings]
        bars = "\n".join(histogram(found.alpha_counts)) if found.alpha_survives is not None else ""
        return rows, f"<pre>{html.escape(bars)}</pre>" if bars else ""

    inputs = [upload, typed, matte_upload, matte_typed, packing, frames]
    button.click(action(run), inputs, [table, levels], api_visibility="private")
