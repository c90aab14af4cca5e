"""Prepare: footage of any kind becomes a dataset."""

import html
from typing import get_args

import gradio as gr

from wan_alpha.cli.prepare import prepare
from wan_alpha.cli.ui.actions import action, build_recipe, picked, side_field
from wan_alpha.training.recipes import PrepareRecipe


def add_prepare_tab(place):
    """The tab's components; call inside gr.Blocks. `place`: a Workplace."""
    source = gr.Textbox(label="Folder of clips, or a manifest: its path", elem_id="prepare-path")
    with gr.Row():
        states = get_args(PrepareRecipe.model_fields["source_state"].annotation)
        state = gr.Dropdown(states, value=states[0], label="Colour of the sources")
        skip_bad = gr.Checkbox(False, label="Leave bad clips out, instead of stopping", elem_id="prepare-skip")
        scenes = gr.Checkbox(False, label="A clip of each scene")
        duplicates = gr.Checkbox(False, label="Leave near duplicates out")
        workers = gr.Number(None, label="Clips checked at a time; empty = one per core", precision=0,
                            elem_id="prepare-workers")  # fmt: skip
        side = side_field("prepare-side")
    button = gr.Button("Make a dataset", variant="primary", elem_id="prepare-run")
    told = gr.HTML(elem_id="prepare-summary")
    table = gr.Dataframe(
        headers=["row", "file", "reason"], interactive=False, wrap=True, elem_id="prepare-table", label="Left out",
        visible=False,
    )  # fmt: skip

    def run(source, state, skip_bad, scenes, duplicates, workers, side):
        values = {
            "source_dir": picked(None, source, "clips"), "source_state": state, "skip_bad": skip_bad,
            "split_scenes": scenes, "drop_near_duplicates": duplicates, "workers": workers,
            "limits__min_side": side,
        }  # fmt: skip
        build_recipe(PrepareRecipe, output_dir="checked", **values)  # before a folder is made for it
        report = prepare(build_recipe(PrepareRecipe, output_dir=place.new_folder("dataset"), **values))
        lines = [f"{report.metadata_path}: {report.num_rows} clips, {report.num_without_prompt} without a prompt"]
        lines += [f"warning: {warning}" for warning in report.warnings]
        rows = [[row.row, str(row.file), row.reason] for row in report.skipped]
        return f"<p>{'<br>'.join(map(html.escape, lines))}</p>", gr.Dataframe(rows, visible=bool(rows))

    given = [source, state, skip_bad, scenes, duplicates, workers, side]
    button.click(action(run), given, [told, table], api_visibility="private")
