"""Reports: runs side by side, made new or opened again."""

from pathlib import Path

import gradio as gr

from wan_alpha.cli.ui.actions import action, build_recipe, picked
from wan_alpha.errors import DataError
from wan_alpha.evaluation.report import PAGE_FILE, check_own_page, report
from wan_alpha.training.recipes import ReportRecipe


def add_report_tab(place):
    """The tab's components; call inside gr.Blocks. `place`: a Workplace."""
    gr.Markdown("**A new report** of training, generate, evaluate or demo runs, or of transparent media")
    runs = gr.Textbox(label="Paths of runs or clips, one a line", lines=3, elem_id="report-runs")
    with gr.Row():
        reference = gr.Textbox(label="True clip or folder of them, for differences; empty = none")
        title = gr.Textbox("report", label="Heading")
        max_clips = gr.Number(24, label="Clips shown of each run", precision=0)
    make = gr.Button("Make the report", variant="primary", elem_id="report-run")
    gr.Markdown("**A report that exists**")
    existing = gr.Textbox(label="Path of its folder", elem_id="report-path")
    look = gr.Button("Open it", elem_id="report-open")
    result = gr.HTML(elem_id="report-result")

    def run(runs, reference, title, max_clips):
        paths = tuple(line.strip() for line in (runs or "").splitlines() if line.strip())
        values = {"runs": paths, "reference": reference.strip(), "title": title, "max_clips": max_clips}
        build_recipe(ReportRecipe, output_dir="checked", **values)  # before a folder is made for it
        written = report(build_recipe(ReportRecipe, output_dir=place.new_folder("report"), **values))
        return place.frame(written.page, "report")

    def show(path):
        folder = picked(None, path, "report")
        page = Path(folder) / PAGE_FILE
        if not page.is_file():
            raise DataError(
                f"{folder}: no report there; expected a folder with {PAGE_FILE}, as wan-alpha report writes"
            )
        check_own_page(folder)
        return place.frame(page, "report")

    make.click(action(run), [runs, reference, title, max_clips], result, api_visibility="private")
    look.click(action(show), existing, result, api_visibility="private")
