"""What a checkpoint holds: the trained tensors, the optimizer's, their average, and whatever is exported beside them.

The state file and the way to the disk are those of :mod:`wan_alpha.training.checkpoint_folder`.
"""

import json

import torch
from torch.distributed.tensor import DTensor

from wan_alpha.errors import CheckpointError
from wan_alpha.training.optimizer_state import restore_state, split_state
from wan_alpha.training.sharded_files import (
    is_in_shards,
    metadata_in_shards,
    read_shards,
    shapes_in_shards,
    shard_content,
    shard_file,
)
from wan_alpha.training.sharding import local, part_of
from wan_alpha.weights.io import load_state_dict, read_metadata
from wan_alpha.weights.safetensors_stream import safetensors_stream

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
AVERAGE_FILE = "ema.safetensors"
FILES = {"model": MODEL_FILE, "optimizer": OPTIMIZER_FILE, "ema": AVERAGE_FILE}
NAMES_BELOW = "names_below"  # in the metadata of weights: others name them without this beginning


def trained_parameters(module):
    """Name -> parameter of everything with a gradient, in the module's order."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def checkpoint_tensors(step, parameters, optimizer, average=None, exported=None, said=None):
    """The tensors of a checkpoint, as they are in use.

    Args:
        step: optimizer steps done; parameters: name -> parameter; optimizer: theirs.
        average: a WeightAverage, or None.
        exported: file name -> (tensors, metadata): files for others to read.
        said: metadata of the weights and of their average.

    Returns:
        file name -> (name -> tensor, metadata).
    """
    kinds = _kinds(step, parameters, optimizer, average, said).items()
    return {**(exported or {}), **{FILES[kind]: content for kind, content in kinds}}


def sharded_checkpoint_tensors(accelerator, step, parameters, optimizer, average=None, exported=None, said=None):
    """What one process writes of a checkpoint in shards; see :func:`checkpoint_tensors`.

    Args:
        accelerator: of the run; exported: of the first process.
    """
    rank, is_main = accelerator.process_index, accelerator.is_main_process
    kinds = _kinds(step, parameters, optimizer, average, said).items()
    files = {
        shard_file(kind, rank, accelerator.num_processes): shard_content(tensors, parameters, metadata, is_main)
        for kind, (tensors, metadata) in kinds
    }
    return {**((exported or {}) if is_main else {}), **files}


def _kinds(step, parameters, optimizer, average, said):
    metadata = {"step": str(step)}
    tensors, values = split_state(optimizer, parameters)
    kinds = {
        "model": (dict(parameters), metadata | (said or {})),
        "optimizer": (tensors, metadata | {"values": json.dumps(values)}),
    }
    return kinds if average is None else {**kinds, "ema": (average.tensors(), metadata | (said or {}))}


def checkpoint_contents(files):
    """``file name -> (tensors, metadata)`` as ``file name -> (number of bytes, chunks)``."""
    return {name: safetensors_stream(*content) for name, content in files.items()}


def load_checkpoint(checkpoint, parameters, optimizer, average=None):
    """Put a checkpoint's tensors into parameters, optimizer and average, whole or in shards here and there.

    Raises:
        CheckpointError: names or shapes are not those of the parameters.
    """
    for name, tensor in _fitting_tensors(checkpoint, "model", parameters).items():
        local(parameters[name].data).copy_(tensor)
    if average is not None:
        average.load(_fitting_tensors(checkpoint, "ema", parameters))
    restore_state(optimizer, parameters, *_optimizer_state(checkpoint, parameters))


def _fitting_tensors(checkpoint, kind, parameters):
    """Name -> tensor for each parameter: whole, or the part that this process holds of a sharded one."""
    in_shards = is_in_shards(checkpoint, kind)
    path = checkpoint / (kind if in_shards else FILES[kind])
    if in_shards:
        shapes = {name: shape for name, (shape, _) in shapes_in_shards(path).items()}
    else:
        tensors = load_state_dict(path)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    differing = sorted(set(shapes) ^ set(parameters)) or [
        name for name, parameter in parameters.items() if tuple(parameter.shape) != shapes[name]
    ]
    if differing:
        raise CheckpointError(
            f"{path}: holds other parameters than this run trains, first {differing[0]} "
            f"({len(shapes)} there, {len(parameters)} here): it was made with another model or mode"
        )
    if in_shards:
        tensors = {name: torch.empty_like(parameter.data) for name, parameter in parameters.items()}
        read_shards(path, tensors)
        return {name: local(tensor) for name, tensor in tensors.items()}
    return {name: part_of(tensor, parameters[name].data) for name, tensor in tensors.items()}


def _optimizer_state(checkpoint, parameters):
    """What ``split_state`` gave: tensors are sharded where their parameter is and they have its shape."""
    in_shards = is_in_shards(checkpoint, "optimizer")
    path = checkpoint / ("optimizer" if in_shards else OPTIMIZER_FILE)
    found = shapes_in_shards(path) if in_shards else load_state_dict(path)
    state = {}
    for key, stored in found.items():
        shape, dtype = stored if in_shards else (tuple(stored.shape), stored.dtype)
        like = parameters.get(key.rsplit("/", 1)[0])
        if isinstance(like, DTensor) and tuple(like.shape) == shape:
            state[key] = torch.zeros_like(like.data, dtype=dtype)
            if not in_shards:
                state[key].to_local().copy_(part_of(stored, like.data))
        else:
            state[key] = torch.zeros(shape, dtype=dtype) if in_shards else stored
    if in_shards:
        read_shards(path, state)
    metadata = metadata_in_shards(path) if in_shards else read_metadata(path)
    # A checkpoint of an earlier version has no values: tensors were all there was.
    return state, json.loads(metadata.get("values", "{}"))
