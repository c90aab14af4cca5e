"""``wan-alpha export-checkpoint``: one file of weights from a checkpoint, in shards or whole; needs no GPU."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.training.checkpoint_folder import find_problem, list_checkpoints
from wan_alpha.training.checkpoints import FILES, NAMES_BELOW
from wan_alpha.training.progress import StepProgress
from wan_alpha.training.run_folder import RECIPE_FILE, START_FILE, run_start, run_title
from wan_alpha.training.saving import CHECKPOINTS_FOLDER
from wan_alpha.training.sharded_files import is_in_shards, metadata_in_shards, read_whole
from wan_alpha.weights.adapter_card import own_metadata, read_card
from wan_alpha.weights.io import load_state_dict, read_metadata, write_stream
from wan_alpha.weights.safetensors_stream import safetensors_stream


def export_checkpoint(recipe):
    """Write one file of an ExportCheckpointRecipe's checkpoint; returns its path.

    Nothing in the checkpoint changes, and its run may go on meanwhile.

    Raises:
        CheckpointError: no such checkpoint, a damaged one, or one without what is asked for.
    """
    checkpoint = find_whole(recipe.checkpoint)
    kind = {"trained": "model", "average": "ema"}[recipe.weights]
    if is_in_shards(checkpoint, kind):
        tensors, metadata = read_whole(checkpoint / kind), metadata_in_shards(checkpoint / kind)
    elif (checkpoint / FILES[kind]).is_file():
        tensors, metadata = load_state_dict(checkpoint / FILES[kind]), read_metadata(checkpoint / FILES[kind])
    else:
        raise CheckpointError(f"{checkpoint}: holds no moving average; its run had no training.ema_decay")
    below = metadata.pop(NAMES_BELOW, None)
    if below is None:
        ready = sorted({path.name for path in checkpoint.glob("*.safetensors")} - set(FILES.values()))
        hint = f"use {checkpoint / ready[0]} as it is" if ready else "it was made by an earlier version"
        raise CheckpointError(f"{checkpoint}: does not say what its weights are named for others; {hint}")
    named = {name.removeprefix(below): tensor for name, tensor in tensors.items()}
    metadata |= own_metadata(_card(metadata, checkpoint.parent.parent), named, metadata.get("kind", "full"))
    # Each tensor comes twice: to be hashed, and to be written.
    with StepProgress("exporting", 2 * len(named), unit="tensors") as bar:
        done = count(1)

        def load(name):
            bar.update(next(done))
            return named[name]

        write_stream(safetensors_stream(named, metadata, load), recipe.output)
    print(f"{recipe.output}: {len(tensors)} tensors, {recipe.weights}, of {checkpoint}")
    return recipe.output


def _card(metadata, run):
    """Where weights are from: what they say, with recipe, title and date as the run's folder has them."""
    card = read_card(metadata)
    if not (run / RECIPE_FILE).is_file():
        return card
    recipe = json.loads((run / RECIPE_FILE).read_text(encoding="utf-8"))
    date = run_start(run) if (run / START_FILE).is_file() else None  # asking writes it
    return replace(card, title=run_title(run, recipe.get("title")), date=date, recipe=recipe)


def find_whole(folder):
    """A checkpoint's folder that holds all that was written: ``folder`` itself, or the newest of the run's there.

    Raises:
        CheckpointError: none is whole, with what is wrong.
    """
    folder = Path(folder)
    candidates = list_checkpoints(folder / CHECKPOINTS_FOLDER)[::-1] or list_checkpoints(folder)[::-1] or [folder]
    problems = []
    for checkpoint in candidates:
        problem = find_problem(checkpoint) if checkpoint.is_dir() else "no such folder"
        if problem is None:
            return checkpoint
        problems.append(f"{checkpoint.name}: {problem}")
    raise CheckpointError(f"{folder}: no whole checkpoint there ({'; '.join(problems)})")
