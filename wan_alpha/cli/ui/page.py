"""The page: seven tabs, each around one command's function."""

import html
from importlib.resources import files

import gradio as gr

from wan_alpha.cli.ui.convert_tab import add_convert_tab
from wan_alpha.cli.ui.dataset_tab import add_dataset_tab
from wan_alpha.cli.ui.evaluate_tab import add_evaluate_tab
from wan_alpha.cli.ui.generate_tab import add_generate_tab
from wan_alpha.cli.ui.prepare_tab import add_prepare_tab
from wan_alpha.cli.ui.probe_tab import add_probe_tab
from wan_alpha.cli.ui.report_tab import add_report_tab

TITLE = "wan-alpha"


def build_page(place):
    """The gr.Blocks over a Workplace."""
    with gr.Blocks(analytics_enabled=False, title=TITLE) as page:
        told = f"Works on this machine alone. Results are in <code>{html.escape(str(place.output_dir))}</code>"
        gr.HTML(f"<h1>{TITLE}</h1><p>{told}</p>")
        with gr.Tabs():
            with gr.Tab("Probe", id="probe"):
                add_probe_tab()
            with gr.Tab("Convert", id="convert"):
                add_convert_tab(place)
            with gr.Tab("Prepare", id="prepare"):
                add_prepare_tab(place)
            with gr.Tab("Dataset", id="dataset"):
                add_dataset_tab(place)
            with gr.Tab("Generate", id="generate"):
                add_generate_tab(place)
            with gr.Tab("Evaluate", id="evaluate"):
                add_evaluate_tab(place)
            with gr.Tab("Reports", id="reports"):
                add_report_tab(place)
    return page


def look():
    """mount_gradio_app's options of how the page looks. Fonts of the system: gradio's own come from the network."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return {"theme": theme, "css": (files("wan_alpha") / "assets" / "ui.css").read_text(encoding="utf-8")}
