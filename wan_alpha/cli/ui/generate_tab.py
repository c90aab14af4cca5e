"""Generate: a prompt into clips, shown on a report's page."""

import gradio as gr

from wan_alpha.cli.ui.actions import action, build_recipe
from wan_alpha.errors import ConfigError
from wan_alpha.evaluation.report import write_report
from wan_alpha.inference.generate import generate
from wan_alpha.training.recipes import GenerateRecipe

_PRESETS = ["generate_1_3b", "tiny_generate"]


def add_generate_tab(place):
    """The tab's components; call inside gr.Blocks. `place`: a Workplace."""
    prompt = gr.Textbox(label="Prompt", lines=2, elem_id="generate-prompt",
                        placeholder="The background is transparent. ...")  # fmt: skip
    with gr.Row():
        config = gr.Dropdown(
            _PRESETS, value=_PRESETS[0], allow_custom_value=True, label="Recipe: a preset, or the path of a file",
            elem_id="generate-config",
        )  # fmt: skip
        num_steps = gr.Number(None, label="Sampling steps; empty = the recipe's", precision=0,
                              elem_id="generate-steps")  # fmt: skip
        seed = gr.Number(None, label="Seed; empty = the recipe's", precision=0)
    with gr.Accordion("Weights, where they are not the recipe's", open=False, elem_id="generate-weights"):
        wan = gr.Textbox(label="Wan folder", elem_id="generate-wan")
        base_vae = gr.Textbox(label="Wan VAE", elem_id="generate-base-vae")
        rgba_weights = gr.Textbox(label="RGBA VAE", elem_id="generate-rgba-weights")
        adapter = gr.Textbox(label="Adapter of stage 2; none = without", elem_id="generate-adapter")
    others = gr.Textbox(
        label="Other options of generate, one a line", lines=3, placeholder="num_frames = 17\nformats = webm,prores",
        elem_id="generate-options",
    )  # fmt: skip
    button = gr.Button("Generate", variant="primary", elem_id="generate-run")
    result = gr.HTML(elem_id="generate-result")

    def run(prompt, config, num_steps, seed, wan, base_vae, rgba_weights, adapter, others):
        values = _read_options(others) | {
            "prompt": prompt, "num_steps": num_steps, "seed": seed, "model__wan": wan, "model__base_vae": base_vae,
            "model__rgba_weights": rgba_weights, "model__adapter": adapter,
        }  # fmt: skip
        config = (config or "").strip() or None
        build_recipe(GenerateRecipe, config, **(values | {"output_dir": "checked"}))  # before a folder is made for it
        folder = place.new_folder("generate")
        clips = generate(build_recipe(GenerateRecipe, config, **(values | {"output_dir": folder})))
        page = write_report([clip.folder for clip in clips], folder / "report", title=folder.name).page
        return place.frame(page, "report")

    inputs = [prompt, config, num_steps, seed, wan, base_vae, rgba_weights, adapter, others]
    button.click(action(run), inputs, result, api_visibility="private")


def _read_options(text):
    """Lines of `name = value` (or as on the command line, `--name value`) as a dict.

    Raises:
        ConfigError: a line without a value, or the folder of results, which is the page's to choose.
    """
    options = {}
    for line in filter(None, map(str.strip, (text or "").splitlines())):
        line = line.removeprefix("--")
        name, equals, value = line.partition("=")
        if not equals:
            name, _, value = line.partition(" ")
        name, value = name.strip().replace("-", "_"), value.strip()
        if not name or not value:
            raise ConfigError(f"{line!r}: expected an option and its value, num_frames = 17")
        if name == "output_dir":
            raise ConfigError(
                "output_dir: results go below the folder that wan-alpha ui was started with; leave it out"
            )
        options[name] = value
    return options
