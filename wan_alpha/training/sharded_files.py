"""Checkpoints in shards: safetensors that torch's distributed checkpoint reads (HuggingFaceStorageReader), no pickle.

step_00000500/
├── model/shard_00000_of_00002.safetensors      a process's parts; their offsets are in the file's header
├── optimizer/..., ema/...
└── adapter.safetensors, state.json, checksums.json, complete.json      as in any checkpoint, by the first process

torch's own writer goes past the durable way to the disk (checksums while writing, space checked before, cancelling),
and its general format has a pickle in it; the layout is its reader's, and reading, for any number of processes, is its.
"""

import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.tensor import DTensor

from wan_alpha.errors import CheckpointError
from wan_alpha.training.sharding import offsets_of
from wan_alpha.weights.io import read_metadata

_OFFSETS_KEY = "DCP_SHARDING_INFO"  # the reader's name for it


def shard_file(what, rank, world_size):
    """Name, below a checkpoint's folder, of the file with one process's parts of "model", "optimizer" or "ema"."""
    return f"{what}/shard_{rank:05d}_of_{world_size:05d}.safetensors"


def shard_content(tensors, parameters, metadata, is_main):
    """What one process writes of tensors that belong to sharded parameters.

    Args:
        tensors: ``<parameter>``, ``<parameter>/<field>`` or another name -> tensor: sharded, or this process's part of
            one in the parameter's own layout, or the same in all processes.
        parameters: name -> parameter; metadata: of the file; is_main: in the first process.

    Returns:
        (name -> tensor, metadata).
    """
    own, offsets = {}, {}
    for name, tensor in sorted(tensors.items()):
        parameter = parameters.get(name, parameters.get(name.rsplit("/", 1)[0]))
        layout, part = (tensor, tensor.to_local()) if isinstance(tensor, DTensor) else (parameter, tensor)
        if isinstance(layout, DTensor) and part.shape == layout.to_local().shape and part.dim() > 0:
            start = offsets_of(layout)
        else:
            start = (0,) * part.dim() if is_main else None
        if start is not None:
            own[name], offsets[name] = part.detach(), {"saved_offsets": list(start)}
    return own, {**metadata, _OFFSETS_KEY: offsets}


def is_in_shards(checkpoint, what):
    """Whether a checkpoint holds "model", "optimizer" or "ema" in shards."""
    return (Path(checkpoint) / what).is_dir()


def shapes_in_shards(folder):
    """Name -> (shape, dtype) of the whole tensors whose shards a folder holds.

    Raises:
        CheckpointError: they cannot be read.
    """
    try:
        found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{folder}: not the shards of a checkpoint ({error})") from error
    return {name: (tuple(item.size), item.properties.dtype) for name, item in found.items()}


def metadata_in_shards(folder):
    """What was said of the tensors when they were written: str to str."""
    metadata = read_metadata(min(Path(folder).iterdir()))
    return {name: value for name, value in metadata.items() if name != _OFFSETS_KEY}


@torch.no_grad()
def read_shards(folder, tensors):
    """Fill tensors, whole or sharded over any number of processes, from shards of any number of processes.

    Args:
        folder: of the shards; tensors: name -> tensor, each in the folder and of its whole shape.

    Raises:
        CheckpointError: they cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as asked
            dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except dcp.CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        raise CheckpointError(f"{folder}: not the shards of a checkpoint ({reason})") from error


def read_whole(folder):
    """Name -> whole tensor, in host memory, of the shards in a folder; needs no other process.

    Raises:
        CheckpointError: they cannot be read.
    """
    tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes_in_shards(folder).items()}
    read_shards(folder, tensors)
    return tensors
