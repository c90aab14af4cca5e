"""Command line options made from a recipe class, so that schema, file and command line cannot drift apart."""

import argparse
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin

from wan_alpha.errors import ConfigError
from wan_alpha.training.config import Section, dotted_fields, list_presets, load_recipe, nearest_option, section_class

_METAVARS = {bool: "BOOL", int: "INT", float: "FLOAT"}
_TRUTH = {"true", "false", "yes", "no", "on", "off", "1", "0"}


def _is_table(annotation):
    return isinstance(annotation, type) and issubclass(annotation, Section)


def value_name(annotation):
    """What the help shows for an option's value: its choices, or its type."""
    if get_origin(annotation) is Literal:
        return "{" + ",".join(str(choice) for choice in get_args(annotation)) + "}"
    if get_origin(annotation) in (Union, UnionType):
        return value_name(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return "JSON" if _is_table(get_args(annotation)[0]) else "A,B,..."
    if get_origin(annotation) is dict:
        return "JSON"
    return _METAVARS.get(annotation, "PATH" if getattr(annotation, "__name__", "") == "Path" else "TEXT")


def _table_class(recipe_class, table):
    for name in table.split(".") if table else ():
        recipe_class = section_class(recipe_class.model_fields[name])
    return recipe_class


def _default_text(field):
    if field.is_required():
        return "(required)"
    if field.default is None:
        return "(default: none)"
    text = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
    return f"(default: {text or 'empty'})"


def spell_options(arguments, recipe_classes, aliases=None):
    """Options as the parser knows them: with _ for -, and ``=true`` for a switch that no truth value follows.

    (argparse would take whatever follows a switch, a positional say, for its value.)

    Args:
        aliases: another spelling (``--out``) -> the option's dotted name.
    """
    fields = {name: field for recipe_class in recipe_classes for name, field in dotted_fields(recipe_class)}
    spelled = []
    for argument, following in pairwise([*arguments, ""]):
        stem, equals, value = argument.partition("=")
        name = (aliases or {}).get(stem) or stem.removeprefix("--").replace("-", "_")
        if not stem.startswith("--") or name not in fields:
            spelled.append(argument)
        elif fields[name].annotation is bool and not equals and following.lower() not in _TRUTH:
            spelled.append(f"--{name}=true")
        else:
            spelled.append(f"--{name}{equals}{value}")
    return spelled


def add_recipe_options(parser, recipe_class, aliases=None):
    """Add ``--config`` and an option per recipe value; only options that are given appear in the parsed namespace.

    Args:
        aliases: dotted name -> another spelling of that option.
    """
    presets = list_presets(recipe_class)
    choice = f", or a preset: {', '.join(presets)}" if presets else ""
    if "config" not in recipe_class.model_fields:  # else the command looks at recipes, and has none of its own
        parser.add_argument("--config", metavar="FILE", help=f"recipe (.toml or .json){choice}")
    groups = {}
    for name, field in dotted_fields(recipe_class):
        table = name.rpartition(".")[0]
        if table not in groups:
            owner = _table_class(recipe_class, table)
            groups[table] = parser.add_argument_group(f"{table} options" if table else "run options", owner.__doc__)
        spellings = [f"--{name}", *([aliases[name]] if name in (aliases or {}) else [])]
        text = f"{field.description} {_default_text(field)}".replace("%", "%%")
        groups[table].add_argument(
            *spellings, dest=name, default=argparse.SUPPRESS, metavar=value_name(field.annotation), help=text
        )


def _hint(recipe_class, argument):
    as_file = f"a file whose name begins with - is given as ./{argument}"
    if Path(argument).exists():
        return as_file
    if not argument.startswith("--"):
        return f"options start with --; {as_file}"
    return nearest_option(recipe_class, argument.removeprefix("--").split("=")[0])


def _pairs(recipe_class, arguments):
    """(option, value) of arguments as the parser reads its own: ``--a value``, ``--a=value``, a switch ``--a``."""
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise ConfigError(f"{name}: no such option; {_hint(recipe_class, name)}")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        yield name.removeprefix("--").replace("-", "_"), value


def recipe_from_options(recipe_class, options, unknown):
    """Build the recipe from parsed options.

    Args:
        options: dict of the parsed namespace; unknown: arguments that the parser did not know.

    Raises:
        ConfigError: an unknown option, with the nearest valid one; or as :func:`load_recipe`.
    """
    names = {name for name, _ in dotted_fields(recipe_class)}
    overrides = {name: value for name, value in options.items() if name in names}
    if "overrides" in names:
        # Options of another command's recipe, which says itself what is wrong with them.
        given = dict(_pairs(recipe_class, unknown))
        if given and "overrides" in overrides:
            raise ConfigError("--overrides and options of the recipe itself: give one of the two")
        return load_recipe(recipe_class, None, overrides | ({"overrides": given} if given else {}))
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such option; {_hint(recipe_class, unknown[0])}")
    return load_recipe(recipe_class, options.get("config"), overrides)
