"""``wan-alpha <command>``: parse, call, exit code. Heavy imports happen inside the commands only.

Exit codes: 0 done, 1 done but a figure missed its bar, 2 something in the input is wrong, 130 interrupted.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from wan_alpha.cli.options import add_recipe_options, recipe_from_options
from wan_alpha.errors import ConfigError, WanAlphaError
from wan_alpha.training import recipes

# Command -> (recipe class, module, function); the function gets the recipe.
RECIPE_COMMANDS = {
    "train-vae": (recipes.TrainVAERecipe, "wan_alpha.stages.stage1_vae", "train_vae"),
    "validate-vae": (recipes.ValidateVAERecipe, "wan_alpha.evaluation.validate_vae", "validate_vae"),
    "cache": (recipes.CacheRecipe, "wan_alpha.stages.cache_latents", "build_cache"),
    "train-dit": (recipes.TrainDiTRecipe, "wan_alpha.stages.stage2_dit", "train_dit"),
    "generate": (recipes.GenerateRecipe, "wan_alpha.inference.generate", "generate"),
}


def build_parser():
    """The whole command line; needs no torch."""
    parser = argparse.ArgumentParser(
        prog="wan-alpha", description="Train and run video models with a real alpha channel.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, summary, **kwargs):
        return commands.add_parser(name, help=summary, description=summary, allow_abbrev=False, **kwargs)

    demo = add("demo", "Train a tiny model in both stages on this machine and generate transparent clips, in minutes.")
    _add_demo_options(demo)

    prepare = add(
        "prepare", "Check a folder of RGBA clips or colour and matte pairs, and write a dataset with metadata.csv."
    )
    prepare.add_argument("source_dir", type=Path, help="folder of clips")
    prepare.add_argument("out_dir", type=Path, help="folder of the dataset, outside source_dir")
    prepare.add_argument(
        "--skip-bad", action="store_true", help="list bad rows and leave them out (default: stop at the first)"
    )
    prepare.add_argument("--link", action="store_true", help="hard-link pairs instead of copying them (default: copy)")
    prepare.add_argument("--workers", type=int, default=1, metavar="INT", help="rows checked at a time (default: 1)")

    for name, (recipe_class, _, _) in RECIPE_COMMANDS.items():
        epilog = "A table's option is written --table.option VALUE and overrides the --config file; none means not set."
        usage = f"wan-alpha {name} [--config FILE] [--option VALUE ...]"
        add_recipe_options(add(name, recipe_class.__doc__.strip(), usage=usage, epilog=epilog), recipe_class)
    return parser


def _add_demo_options(demo):
    def add(name, summary, **kwargs):
        default = " (default: %(default)s)" if kwargs.get("default") is not None else ""
        demo.add_argument(name, help=summary + default, **kwargs)

    add("--out", "folder of everything it writes", type=Path, default=Path("wan_alpha_demo"), metavar="DIR")
    add("--source", "folder of your own RGBA clips, to train on besides the drawn ones", type=Path, metavar="DIR")
    add("--num-clips", "drawn clips to train on", type=int, default=48, metavar="INT")
    add("--num-held-out", "drawn clips to validate on", type=int, default=8, metavar="INT")
    add("--vae-steps", "training steps of stage 1 (default: the preset tiny_stage1's)", type=int, metavar="INT")
    add("--dit-steps", "training steps of stage 2 (default: the preset tiny_stage2's)", type=int, metavar="INT")
    add("--seed", "seed of everything", type=int, default=0, metavar="INT")
    add("--device", "where to run", choices=["auto", "cuda", "mps", "cpu"], default="auto")


def check_torchvision():
    """Fail early, and in one sentence, where torchvision does not fit torch.

    Raises:
        ConfigError: torchvision is missing or was built for another torch.
    """
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"torchvision cannot be imported beside this torch ({reason}): the two must come from the same place, "
            "both from PyPI or both from PyTorch's own index (a CPU-only torch needs the torchvision from there)"
        ) from error


def _demo(options):
    from wan_alpha.demo.run import DemoSettings, run_demo

    settings = DemoSettings(
        num_clips=options.num_clips, num_held_out=options.num_held_out, vae_steps=options.vae_steps,
        dit_steps=options.dit_steps, seed=options.seed, device=options.device, source=options.source,
    )  # fmt: skip
    return run_demo(options.out, settings)


def _prepare(options):
    from wan_alpha.data.prepare import prepare_dataset
    from wan_alpha.training.progress import StepProgress

    with StepProgress("checking clips", total=None, unit="clips") as bar:
        report = prepare_dataset(
            options.source_dir, options.out_dir, skip_bad=options.skip_bad, link=options.link, workers=options.workers,
            progress=lambda done, total, name: bar.update(done, name, total),
        )  # fmt: skip
    for row in report.skipped:
        print(f"left out row {row.row} ({row.file}): {row.reason}")
    left_out = f", {len(report.skipped)} left out" if report.skipped else ""
    print(f"{report.metadata_path}: {report.num_rows} clips{left_out}, {report.num_without_prompt} without a prompt")
    return 0


def _run_recipe(command, options, unknown):
    recipe_class, module, function = RECIPE_COMMANDS[command]
    recipe = recipe_from_options(recipe_class, vars(options), unknown)
    check_torchvision()
    result = getattr(import_module(module), function)(recipe)
    # Only validation judges: its result says whether the bars were passed.
    return 0 if getattr(result, "passed", True) else 1


def _run(options, unknown, parser):
    if options.command in RECIPE_COMMANDS:
        return _run_recipe(options.command, options, unknown)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    check_torchvision()
    return {"demo": _demo, "prepare": _prepare}[options.command](options)


def main(argv=None):
    """Run one command; returns the exit code."""
    parser = build_parser()
    options, unknown = parser.parse_known_args(argv)
    try:
        return _run(options, unknown, parser)
    except WanAlphaError as error:
        print(f"wan-alpha {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"wan-alpha {options.command}: interrupted; the same command continues where it can", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
