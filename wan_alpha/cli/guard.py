"""What every command and every script does around its work: check the installation, turn errors into one message."""

import sys
from importlib import import_module

from wan_alpha.errors import ConfigError, RunStopped, WanAlphaError

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: "the user is invited to retry"


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


def run_recipe(name, read_recipe, run, needs_torch=True):
    """Read a recipe, check the installation, run; what a user can mend is one message, all else a traceback.

    Args:
        name: what the messages begin with.
        read_recipe: () -> recipe; light, so that a wrong option is told at once.
        run: (recipe) -> result; what is heavy is imported in it. A result whose ``passed`` is false missed its bar.
        needs_torch: False spares a command that reads headers alone the import of torch.

    Returns:
        exit code: 0 done, 1 done but a figure missed its bar, 2 something in the input is wrong, 75 stopped by a signal
        and saved (the same command continues), 130 interrupted at once.
    """
    try:
        recipe = read_recipe()
        if needs_torch:
            check_torchvision()
        result = run(recipe)
    except RunStopped as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        return EXIT_STOPPED
    except WanAlphaError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command continues where it can", file=sys.stderr)
        return 130
    return 0 if getattr(result, "passed", True) else 1
