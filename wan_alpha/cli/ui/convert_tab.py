"""Convert: one clip into another format, and how it looks over three backgrounds."""

import html

import gradio as gr

from wan_alpha.cli.convert import convert
from wan_alpha.cli.ui.actions import action, build_recipe, file_picker, picked
from wan_alpha.media.formats import FORMATS, find_format
from wan_alpha.media.packed import PACKINGS
from wan_alpha.media.premultiplied import SOURCE_STATES
from wan_alpha.training.recipes import ConvertRecipe

_VIDEOS, _PICTURES = (".webm", ".mp4"), (".png", ".apng", ".webp", ".gif")  # what browsers show
_BACKGROUNDS = ("checker", "black", "magenta")


def add_convert_tab(place):
    """The tab's components; call inside gr.Blocks. `place`: a Workplace."""
    upload, typed = file_picker("File or clip to convert", "convert")
    formats = [(f"{one.name}: {one.summary}", one.name) for one in FORMATS.values()]
    with gr.Row():
        format_name = gr.Dropdown(formats, value="webm", label="Format", elem_id="convert-format")
        name = gr.Textbox(label="Name of the output, without suffix; empty = the source's")
    with gr.Accordion("More", open=False):
        matte_upload, matte_typed = file_picker("Matte of a pair", "convert-matte")
        with gr.Row():
            packing = gr.Dropdown(list(PACKINGS), value="none", label="Half of the picture that holds alpha")
            state = gr.Dropdown(list(SOURCE_STATES), value="straight", label="State of the source's colour")
        with gr.Row():
            fps = gr.Number(None, label="Frames per second; empty = the source's")
            start = gr.Number(0, label="First frame", precision=0)
            num_frames = gr.Number(None, label="Frames; empty = all that follow", precision=0)
        with gr.Row():
            background = gr.Textbox("checkerboard", label="Background of a preview")
            premultiplied = gr.Checkbox(False, label="Store colour multiplied by alpha")
    button = gr.Button("Convert", variant="primary", elem_id="convert-run")
    result = gr.HTML(elem_id="convert-result")

    def run(
        upload, typed, format_name, name, matte_upload, matte_typed, packing, state, fps, start, num_frames, background,
        premultiplied,
    ):  # fmt: skip
        source = picked(upload, typed, "file")
        chosen = find_format(format_name)
        values = {
            "source": source, "format": format_name, "packing": packing, "source_state": state, "fps": fps,
            "start": start, "num_frames": num_frames, "background": background, "premultiplied": premultiplied,
            "matte": picked(matte_upload, matte_typed, "matte", required=False),
        }  # fmt: skip
        build_recipe(ConvertRecipe, output="checked", **values)  # before a folder is made for it
        # Of a typed name only its last part: results stay in the folder of results.
        stem = (name or "").strip().replace("\\", "/").rpartition("/")[2] or source.stem
        output = place.new_folder("convert") / (stem.strip(". ") or "clip")
        output = output.with_name(output.name + chosen.suffix)
        return _show(place, convert(build_recipe(ConvertRecipe, output=output, **values)))

    inputs = [
        upload, typed, format_name, name, matte_upload, matte_typed, packing, state, fps, start, num_frames, background,
        premultiplied,
    ]  # fmt: skip
    button.click(action(run), inputs, result, api_visibility="private")


def _show(place, converted):
    written = converted.written
    path, size = written.path, f"{written.num_frames} frames of {written.width}x{written.height}, {written.fps:g} fps"
    lines = [f"{html.escape(str(written))}; {size}"]
    lines += [f"note: {html.escape(note)}" for note in converted.notes]
    shown = "".join(f"<p>{line}</p>" for line in lines)
    if path.is_dir():
        return shown
    address, name = place.address(path), html.escape(path.name, quote=True)
    shown += f'<p><a href="{address}" download="{name}">Save {name}</a></p>'
    if path.suffix in _VIDEOS:
        medium = f'<video src="{address}" aria-label="{name}" autoplay loop muted playsinline controls></video>'
    elif path.suffix in _PICTURES:
        medium = f'<img src="{address}" alt="{name}">'
    else:
        return shown
    kinds = _BACKGROUNDS if written.output_format.alpha == "plane" else _BACKGROUNDS[:1]
    figures = (f'<figure class="{kind}">{medium}<figcaption>{kind}</figcaption></figure>' for kind in kinds)
    return f'{shown}<div class="figures">{"".join(figures)}</div>'
