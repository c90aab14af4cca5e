"""Command line options made from a recipe class, so that schema, file and command line cannot drift apart."""

import argparse
from types import UnionType
from typing import Literal, Union, get_args, get_origin

from wan_alpha.errors import ConfigError
from wan_alpha.training.config import dotted_fields, list_presets, load_recipe, nearest_option, section_class

_METAVARS = {bool: "BOOL", int: "INT", float: "FLOAT"}


def value_name(annotation):
    """What the help shows for an option's value: its choices, or its type."""
    if get_origin(annotation) is Literal:
        return "{" + ",".join(str(choice) for choice in get_args(annotation)) + "}"
    if get_origin(annotation) in (Union, UnionType):
        return value_name(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return "A,B,..."
    return _METAVARS.get(annotation, "PATH" if getattr(annotation, "__name__", "") == "Path" else "TEXT")


def _default_text(field):
    if field.is_required():
        return "(required)"
    if field.default is None:
        return "(default: none)"
    text = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default)
    return f"(default: {text or 'empty'})"


def add_recipe_options(parser, recipe_class):
    """Add ``--config`` and an option per recipe value; only options that are given appear in the parsed namespace."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"recipe (.toml or .json), or a preset: {', '.join(list_presets())}"
    )
    groups = {}
    for name, field in dotted_fields(recipe_class):
        table = name.rpartition(".")[0]
        if table not in groups:
            owner = section_class(recipe_class.model_fields[table]) if table else recipe_class
            groups[table] = parser.add_argument_group(f"{table} options" if table else "run options", owner.__doc__)
        # A switch without a value means true.
        extra = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        text = f"{field.description} {_default_text(field)}".replace("%", "%%")
        groups[table].add_argument(
            f"--{name}", dest=name, default=argparse.SUPPRESS, metavar=value_name(field.annotation), help=text, **extra
        )


def recipe_from_options(recipe_class, options, unknown):
    """Build the recipe from parsed options.

    Args:
        options: dict of the parsed namespace; unknown: arguments that the parser did not know.

    Raises:
        ConfigError: an unknown option, with the nearest valid one; or as :func:`load_recipe`.
    """
    if unknown:
        name = unknown[0].removeprefix("--").split("=")[0]
        hint = nearest_option(recipe_class, name) if unknown[0].startswith("--") else "options start with --"
        raise ConfigError(f"{unknown[0]}: no such option; {hint}")
    names = {name for name, _ in dotted_fields(recipe_class)}
    overrides = {name: value for name, value in options.items() if name in names}
    return load_recipe(recipe_class, options.get("config"), overrides)
