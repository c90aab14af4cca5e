"""Checkpoints of a run: ``step_00000500/`` with the trained tensors, the optimizer's and a state file.

A checkpoint is written to a hidden folder, flushed to disk and renamed, so that a folder of that name is a whole one.
"""

import json
import os
import re
import shutil
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.io import load_state_dict, save_safetensors

FORMAT_VERSION = 2
_NAME = re.compile(r"step_(\d{8,})$")


def trained_parameters(module):
    """Name -> parameter of everything with a gradient, in the module's order."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def optimizer_tensors(optimizer, parameters):
    """The optimizer's state as ``<parameter>/<field>`` -> tensor."""
    return {
        f"{name}/{field}": value
        for name, parameter in parameters.items()
        for field, value in optimizer.state[parameter].items()
    }


def save_checkpoint(folder, step, parameters, optimizer, state, keep):
    """Write one checkpoint whole or not at all, then delete all but the newest ``keep``.

    Args:
        folder: of the run's checkpoints; step: optimizer steps done; parameters: name -> parameter.
        optimizer: their optimizer; state: dict of JSON values; keep: number of checkpoints to keep.
    """
    folder = Path(folder)
    final = folder / f"step_{step:08d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_safetensors(parameters, partial / "model.safetensors", {"step": str(step)})
    save_safetensors(optimizer_tensors(optimizer, parameters), partial / "optimizer.safetensors", {"step": str(step)})
    sizes = {path.name: path.stat().st_size for path in partial.iterdir()}
    content = {"format_version": FORMAT_VERSION, "step": step, **state, "files": sizes}
    (partial / "state.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for path in [*partial.iterdir(), partial]:
        _flush(path)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    _flush(folder)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def _flush(path):
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def list_checkpoints(folder):
    """Folders of the run's checkpoints, oldest first."""
    folder = Path(folder)
    found = [path for path in folder.iterdir() if _NAME.match(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(_NAME.match(path.name)[1]))


def read_state(checkpoint):
    """The state of a checkpoint, or None if a file of it is missing or cut short."""
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        sizes = {name: (checkpoint / name).stat().st_size for name in state["files"]}
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return None
    return state if sizes == state["files"] and state["format_version"] == FORMAT_VERSION else None


def newest_checkpoint(folder):
    """(folder, state) of the newest complete checkpoint, or None."""
    for checkpoint in reversed(list_checkpoints(folder)):
        state = read_state(checkpoint)
        if state is not None:
            return checkpoint, state
    return None


def load_checkpoint(checkpoint, parameters, optimizer):
    """Put a checkpoint's tensors into parameters and optimizer.

    Raises:
        CheckpointError: names or shapes are not those of the parameters.
    """
    tensors = load_state_dict(checkpoint / "model.safetensors")
    differing = sorted(set(tensors) ^ set(parameters)) or [
        name for name, parameter in parameters.items() if parameter.shape != tensors[name].shape
    ]
    if differing:
        raise CheckpointError(
            f"{checkpoint}: holds other parameters than this run trains, first {differing[0]} "
            f"({len(tensors)} there, {len(parameters)} here): it was made with another model or mode"
        )
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])
    fields = {}
    for key, value in load_state_dict(checkpoint / "optimizer.safetensors").items():
        name, field = key.rsplit("/", 1)
        fields.setdefault(name, {})[field] = value
    # Through load_state_dict, which puts each tensor where the optimizer wants it.
    state = optimizer.state_dict()
    names = list(parameters)
    state["state"] = {index: fields[name] for index, name in enumerate(names) if name in fields}
    optimizer.load_state_dict(state)
