"""`wan-alpha presets`: the recipes that come with the package, and what each is for."""

import json
import tomllib

from rich.console import Console
from rich.table import Table

from wan_alpha.errors import ConfigError
from wan_alpha.training.config import dotted_fields, list_presets, preset_file


def show_presets(recipe):
    """Print the list, or one preset.

    Args:
        recipe: a PresetsRecipe.

    Raises:
        ConfigError: no preset of that name.
    """
    if recipe.name is not None:
        text = _read(recipe.name)
        print(json.dumps(tomllib.loads(text), indent=2) if recipe.print_json else text.rstrip("\n"))
        return
    rows = [{"name": name, "command": command_of_preset(name), "about": _about(_read(name))} for name in list_presets()]
    if recipe.print_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("preset", "command", "what it is")
    for row in rows:
        table.add_row(row["name"], row["command"], row["about"])
    console = Console()
    console.print(table)
    console.print(
        "wan-alpha COMMAND --config PRESET runs one; wan-alpha presets PRESET > mine.toml makes it yours", markup=False
    )


def _read(name):
    path = preset_file(name)
    if path is None:
        raise ConfigError(f"{name}: no such preset; there are {', '.join(list_presets())}")
    return path.read_text(encoding="utf-8")


def _about(text):
    """The comment that a preset begins with, to its first full stop."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(lines).partition(". ")[0].rstrip(".")


def command_of_preset(name):
    """The command that a preset is for: of those that know all of its options, the one with the fewest others."""
    from wan_alpha.cli.main import COMMANDS

    taking = [command for command, (recipe_class, _, _) in COMMANDS.items() if name in list_presets(recipe_class)]
    return min(taking, key=lambda command: len(list(dotted_fields(COMMANDS[command][0]))))
