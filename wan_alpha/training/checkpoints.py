"""What a checkpoint holds: the trained tensors, the optimizer's, their average, and whatever is exported beside them.

The state file and the way to the disk are those of :mod:`wan_alpha.training.checkpoint_folder`.
"""

import json

from wan_alpha.errors import CheckpointError
from wan_alpha.training.optimizer_state import restore_state, split_state
from wan_alpha.weights.io import load_state_dict, read_metadata
from wan_alpha.weights.safetensors_stream import safetensors_stream

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
AVERAGE_FILE = "ema.safetensors"


def trained_parameters(module):
    """Name -> parameter of everything with a gradient, in the module's order."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def checkpoint_tensors(step, parameters, optimizer, average=None, exported=None):
    """The tensors of a checkpoint, as they are in use.

    Args:
        step: optimizer steps done; parameters: name -> parameter; optimizer: theirs.
        average: a WeightAverage, or None.
        exported: file name -> (tensors, metadata): files for others to read.

    Returns:
        file name -> (name -> tensor, metadata).
    """
    metadata = {"step": str(step)}
    files = {MODEL_FILE: (dict(parameters), metadata)}
    tensors, values = split_state(optimizer, parameters)
    files[OPTIMIZER_FILE] = (tensors, metadata | {"values": json.dumps(values)})
    if average is not None:
        files[AVERAGE_FILE] = (average.tensors(), metadata)
    return {**(exported or {}), **files}


def checkpoint_contents(files):
    """``file name -> (tensors, metadata)`` as ``file name -> (number of bytes, chunks)``."""
    return {name: safetensors_stream(*content) for name, content in files.items()}


def load_checkpoint(checkpoint, parameters, optimizer, average=None):
    """Put a checkpoint's tensors into parameters, optimizer and average.

    Raises:
        CheckpointError: names or shapes are not those of the parameters.
    """
    for name, tensor in _fitting_tensors(checkpoint / MODEL_FILE, parameters).items():
        parameters[name].data.copy_(tensor)
    if average is not None:
        average.load(_fitting_tensors(checkpoint / AVERAGE_FILE, parameters))
    path = checkpoint / OPTIMIZER_FILE
    values = json.loads(read_metadata(path).get("values", "{}"))  # of an earlier version: tensors were all there was
    restore_state(optimizer, parameters, load_state_dict(path), values)


def _fitting_tensors(path, parameters):
    tensors = load_state_dict(path)
    differing = sorted(set(tensors) ^ set(parameters)) or [
        name for name, parameter in parameters.items() if parameter.shape != tensors[name].shape
    ]
    if differing:
        raise CheckpointError(
            f"{path}: holds other parameters than this run trains, first {differing[0]} "
            f"({len(tensors)} there, {len(parameters)} here): it was made with another model or mode"
        )
    return tensors
