"""A clip that ``generate`` wrote: what of its folder is looked at, and what it was made from."""

import json
from pathlib import Path

from wan_alpha.data.manifest import Row
from wan_alpha.errors import DataError

SETTINGS_FILE = "settings.json"
MASTER = "frames"
# Written, but not read as a clip.
NOT_READ = {"zip", "zip16", "sprites", "stacked"}


def read_settings(folder: Path) -> dict:
    """The clip's settings.json; {} in a folder that has none, or one that is another program's.

    Raises:
        DataError: it is no JSON.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error})") from error
    return settings if isinstance(settings, dict) else {}


def made_from(settings: dict) -> dict:
    """{"prompt", "seed"} of a clip's settings, None where they do not say."""
    recipe = settings.get("recipe", {})
    return {name: settings.get(name, recipe.get(name)) for name in ("prompt", "seed")}


def generated_row(folder: Path, settings: dict, index: int = 1) -> Row | None:
    """The clip's master: its frames, else the output whose alpha is nearest to what was decoded.

    Returns:
        The row; None where the folder holds no output with alpha that can be read.
    """
    if (folder / MASTER).is_dir():
        return Row(index, folder / MASTER)
    outputs = [
        one for one in settings.get("outputs", [])
        if one.get("alpha_error") and one["format"] not in NOT_READ and (folder / one["file"]).exists()
    ]  # fmt: skip
    if not outputs:
        return None
    best = min(outputs, key=lambda one: one["alpha_error"]["mean_error"])
    return Row(index, folder / best["file"], source_state=best.get("colour", "straight"))
