"""``wan-alpha <command>``: parse, call, exit code. Heavy imports happen inside the commands only.

Exit codes: 0 done, 1 done but a figure missed its bar, 2 something in the input is wrong, 75 training was stopped by
SIGTERM, SIGINT or SIGUSR1 and has saved (the same command continues it), 130 interrupted at once.
"""

import argparse
import sys
from importlib import import_module
from typing import get_origin

from wan_alpha.cli.guard import run_recipe
from wan_alpha.cli.options import add_recipe_options, recipe_from_options, spell_options
from wan_alpha.training import recipes

# Command -> (recipe class, module, function); the function gets the recipe.
COMMANDS = {
    "demo": (recipes.DemoRecipe, "wan_alpha.demo.run", "run_demo"),
    "inspect": (recipes.InspectRecipe, "wan_alpha.cli.inspect", "inspect_path"),
    "presets": (recipes.PresetsRecipe, "wan_alpha.cli.presets", "show_presets"),
    "probe": (recipes.ProbeRecipe, "wan_alpha.cli.probe", "probe_file"),
    "doctor": (recipes.DoctorRecipe, "wan_alpha.cli.doctor", "doctor"),
    "prepare": (recipes.PrepareRecipe, "wan_alpha.cli.prepare", "prepare"),
    "convert": (recipes.ConvertRecipe, "wan_alpha.cli.convert", "convert"),
    "plan": (recipes.PlanRecipe, "wan_alpha.cli.plan", "plan"),
    "train-vae": (recipes.TrainVAERecipe, "wan_alpha.stages.stage1_vae", "train_vae"),
    "validate-vae": (recipes.ValidateVAERecipe, "wan_alpha.evaluation.validate_vae", "validate_vae"),
    "cache": (recipes.CacheRecipe, "wan_alpha.stages.cache_latents", "build_cache"),
    "train-dit": (recipes.TrainDiTRecipe, "wan_alpha.stages.stage2_dit", "train_dit"),
    "export-checkpoint": (
        recipes.ExportCheckpointRecipe,
        "wan_alpha.training.export_checkpoint",
        "export_checkpoint",
    ),
    "generate": (recipes.GenerateRecipe, "wan_alpha.inference.generate", "generate"),
    "convert-adapter": (recipes.ConvertAdapterRecipe, "wan_alpha.cli.adapters", "convert_adapter"),
    "merge": (recipes.MergeRecipe, "wan_alpha.cli.adapters", "merge"),
    "evaluate": (recipes.EvaluateRecipe, "wan_alpha.evaluation.evaluate", "evaluate"),
    "report": (recipes.ReportRecipe, "wan_alpha.evaluation.report", "report"),
    "perf": (recipes.PerfRecipe, "wan_alpha.cli.perf", "perf"),
    "ui": (recipes.UiRecipe, "wan_alpha.cli.ui.serve", "serve"),
}
# Other names of a command's options, and options that may be given by their place.
ALIASES = {
    "demo": {"output_dir": "--out"},
    "doctor": {"output_dir": "--out", "print_json": "--json"},
    "evaluate": {"output_dir": "--out"},
    "inspect": {"for_command": "--for", "print_json": "--json"},
    "plan": {"for_command": "--for", "print_json": "--json"},
    "perf": {"print_json": "--json"},
    "presets": {"print_json": "--json"},
    "probe": {"print_json": "--json"},
    "report": {"output_dir": "--out"},
    "ui": {"output_dir": "--out", "open_browser": "--open"},
}
POSITIONALS = {
    "inspect": ("path",),
    "perf": ("action", "before", "after"),
    "presets": ("name",),
    "probe": ("file",),
    "convert": ("source", "output"),
    "convert-adapter": ("source", "output"),
    "merge": ("base", "adapter", "output"),
    "export-checkpoint": ("checkpoint", "output"),
    "doctor": ("dataset",),
    "prepare": ("source_dir", "output_dir"),
    "evaluate": ("pred", "reference"),
    "report": ("runs",),
}
WITHOUT_TORCH = ("inspect", "presets")
EPILOG = (
    "A table's option is written --table.option VALUE and overrides the --config file; none means not set. Words of a "
    "name may be joined by - or _; a BOOL without a value means true."
)


def build_parser():
    """The whole command line; needs no torch."""
    parser = argparse.ArgumentParser(
        prog="wan-alpha", description="Train and run video models with a real alpha channel.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (recipe_class, _, _) in COMMANDS.items():
        summary, places = recipe_class.__doc__.strip(), POSITIONALS.get(name, ())
        shown = [place if recipe_class.model_fields[place].is_required() else f"[{place}]" for place in places]
        usage = " ".join([f"wan-alpha {name}", *shown, "[--config FILE] [--option VALUE ...]"])
        command = commands.add_parser(
            name, help=summary, description=summary, usage=usage, epilog=EPILOG, allow_abbrev=False
        )
        for place in places:
            field = recipe_class.model_fields[place]
            many = "*" if get_origin(field.annotation) is tuple else "?"
            command.add_argument(
                f"at {place}", nargs=many, default=argparse.SUPPRESS, metavar=place, help=field.description
            )
        add_recipe_options(command, recipe_class, ALIASES.get(name, {}))
    return parser


def main(argv=None):
    """Run one command; returns the exit code."""
    given = sys.argv[1:] if argv is None else argv
    aliases = {spelling: name for names in ALIASES.values() for name, spelling in names.items()}
    # The same word may be a switch of one command and take a value in another.
    names = given[:1] if given and given[0] in COMMANDS else COMMANDS
    arguments = spell_options(given, [COMMANDS[name][0] for name in names], aliases)
    options, unknown = build_parser().parse_known_args(arguments)
    recipe_class, module, function = COMMANDS[options.command]
    given = {name.removeprefix("at "): value for name, value in vars(options).items()}
    return run_recipe(
        f"wan-alpha {options.command}",
        lambda: recipe_from_options(recipe_class, given, unknown),
        lambda recipe: getattr(import_module(module), function)(recipe),
        needs_torch=options.command not in WITHOUT_TORCH,
    )


if __name__ == "__main__":
    sys.exit(main())
