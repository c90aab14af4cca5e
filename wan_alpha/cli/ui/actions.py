"""What every button of the page does around its work: feed the progress bar, turn errors into one message."""

import html
import inspect
from functools import wraps
from pathlib import Path

import gradio as gr

from wan_alpha.errors import ConfigError, WanAlphaError
from wan_alpha.training.config import load_recipe
from wan_alpha.training.progress import watch_progress
from wan_alpha.training.recipes.shared import LimitSettings


def action(function):
    """A gradio handler of the function, which stays free of gradio: (values of components) -> (values of components).

    What a user can mend is shown as a message; the bar shows the same steps as the terminal.
    """

    @wraps(function)
    def handler(*values):
        *given, bar = values

        def show(description, done, total, figure):
            bar((done, total), desc=f"{description} {figure}".strip(), unit="")

        try:
            with watch_progress(show):
                return function(*given)
        except WanAlphaError as error:
            text = html.escape(str(error)).replace("\n", "<br>")
            raise gr.Error(text, duration=None, title="That did not work", print_exception=False) from None

    # gradio finds the bar by its default value.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [*inspect.signature(function).parameters.values()]
    handler.__signature__ = inspect.Signature([*parameters, inspect.Parameter("bar", kind, default=gr.Progress())])
    return handler


def file_picker(label, key):
    """Two components for one file: an upload, and a path for what is a folder or too large to upload."""
    with gr.Row(equal_height=True):
        upload = gr.File(label=label, type="filepath", height=110, elem_id=f"{key}-upload")
        typed = gr.Textbox(label=f"{label}: or its path on this machine", elem_id=f"{key}-path")
    return upload, typed


def side_field(key):
    """A component for the shortest side that clips may have."""
    default = LimitSettings.model_fields["min_side"].default
    return gr.Number(default, label="Shortest side allowed, pixels", precision=0, elem_id=key)


def picked(upload, typed, what, required=True):
    """The one path that was given of the two; None where neither was and none is required.

    Raises:
        ConfigError: both, or neither.
    """
    typed = (typed or "").strip()
    if upload and typed:
        raise ConfigError(f"{what}: choose a file or type a path, one of the two")
    if not upload and not typed:
        if required:
            raise ConfigError(f"{what}: choose a file or type its path")
        return None
    return Path(upload) if upload else Path(typed).expanduser()


def build_recipe(recipe_class, config=None, **values):
    """The recipe of these values, as the command line would build it; what is None or empty stays the default.

    Names of a table's options are joined by two underscores: model__wan. Raises as load_recipe.
    """
    given = {name.replace("__", "."): value for name, value in values.items() if value not in (None, "", ())}
    return load_recipe(recipe_class, config, given)
