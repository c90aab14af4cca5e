"""Dataset: doctor's findings and contact sheet, and a repaired copy."""

import html

import gradio as gr

from wan_alpha.cli.doctor import doctor
from wan_alpha.cli.ui.actions import action, build_recipe, picked, side_field
from wan_alpha.data.doctor.report import SHEET_FILE, finding_rows, summary
from wan_alpha.training.recipes import DoctorRecipe


def add_dataset_tab(place):
    """The tab's components; call inside gr.Blocks. `place`: a Workplace."""
    dataset = gr.Textbox(label="Dataset folder, manifest, or folder of clips: its path", elem_id="dataset-path")
    with gr.Row():
        sheet_clips = gr.Number(200, label="Clips in the contact sheet at most", precision=0)
        workers = gr.Number(None, label="Clips checked at a time; empty = one per core", precision=0,
                            elem_id="dataset-workers")  # fmt: skip
        side = side_field("dataset-side")
        fix = gr.Checkbox(False, label="Write a repaired copy; the original is only read", elem_id="dataset-fix")
    button = gr.Button("Look at it", variant="primary", elem_id="dataset-run")
    told = gr.HTML(elem_id="dataset-summary")
    table = gr.Dataframe(
        headers=["row", "file", "check", "finding", "--fix"], interactive=False, wrap=True, elem_id="dataset-table",
        label="Errors and warnings", visible=False,
    )  # fmt: skip
    sheet = gr.HTML(elem_id="dataset-sheet")

    def run(dataset, sheet_clips, workers, side, fix):
        values = {"dataset": picked(None, dataset, "dataset"), "sheet_clips": sheet_clips, "workers": workers}
        values["limits__min_side"] = side
        build_recipe(DoctorRecipe, **values)  # before a folder is made for it
        folder = place.new_folder("dataset")
        copy = folder / "repaired" if fix else None
        report = doctor(build_recipe(DoctorRecipe, output_dir=folder, fix=copy, **values)).report
        rows = [list(row) for row in finding_rows(report)]
        shown = place.frame(folder / SHEET_FILE, "contact sheet")
        told = [summary(report), *([f"repaired: {copy}"] if fix else [])]
        return f"<p>{'<br>'.join(map(html.escape, told))}</p>", gr.Dataframe(rows, visible=bool(rows)), shown

    button.click(
        action(run), [dataset, sheet_clips, workers, side, fix], [told, table, sheet], api_visibility="private"
    )
