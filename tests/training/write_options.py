"""Writes what the recipes say of their options: the frozen list beside this, and the tables of the guide.

python tests/training/write_options.py      (after an option was added or changed on purpose)

In the guide a table stands between <!-- options: COMMAND [TABLE ...] --> and <!-- end of options -->; without tables it
has all of the command's options, and "run" stands for those outside of any table.
"""

import re
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from wan_alpha.cli.main import COMMANDS  # noqa: E402
from wan_alpha.training.config import dotted_fields  # noqa: E402

FROZEN = Path(__file__).with_name("recipe_options.txt")
GUIDE = ROOT / "WAN_ALPHA_TRAINING_GUIDE.md"
BLOCK = re.compile(r"(<!-- options: (.+?) -->\n)(.*?)(<!-- end of options -->)", re.DOTALL)


def default_text(field):
    """An option's default as a recipe would have it."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    text = ", ".join(map(str, value)) if isinstance(value, (tuple, dict)) else str(value)
    return f"`{text}`" if text else "empty"


def meaning(field):
    """An option's description, with the choices that it does not name."""
    choices = []
    for annotation in (field.annotation, *get_args(field.annotation)):
        if get_origin(annotation) is Literal:
            choices = [str(choice) for choice in get_args(annotation)]
    text = field.description
    if any(not re.search(rf"\b{re.escape(choice)}\b", text) for choice in choices):
        text += f" ({', '.join(choices)})"
    return re.sub(r"<(\w+)>", r"`<\1>`", text).replace("|", "\\|")


def frozen_lines():
    """command option = default: description, one for each option of each command."""
    for command, (recipe_class, _, _) in COMMANDS.items():
        for name, field in dotted_fields(recipe_class):
            yield f"{command} {name} = {default_text(field).strip('`')}: {field.description}"


def table(wanted):
    """The lines of the table that a marker asks for, e.g. "train-vae run model"."""
    command, *tables = wanted.split()
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for name, field in dotted_fields(COMMANDS[command][0]):
        if not tables or (name.partition(".")[0] if "." in name else "run") in tables:
            lines.append(f"| `{name}` | {default_text(field)} | {meaning(field)} |")
    assert len(lines) > 2, wanted
    return "\n".join(lines) + "\n"


def guide_text(text):
    """The guide with its tables as the recipes have them."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[4]}", text)


if __name__ == "__main__":
    FROZEN.write_text("".join(f"{line}\n" for line in frozen_lines()), encoding="utf-8")
    GUIDE.write_text(guide_text(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
