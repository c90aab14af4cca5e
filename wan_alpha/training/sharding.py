"""Weights in shards over the processes, by torch's fully_shard (FSDP2); accelerate's configuration says how many.

full shard: one mesh dimension, every process holds 1/N of each weight
hybrid:     two, "replicate" x "shard": groups of processes hold all weights once each
"""

import os

import torch
import torch.distributed as dist
from accelerate.utils import ParallelismConfig, patch_environment, str_to_bool
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate

from wan_alpha.errors import ConfigError

# What accelerate's launcher tells its processes. They are read here and hidden from accelerate itself, which shards on
# accelerators only and takes the model's optimizer apart on the way: what is tested on CPUs is what runs on GPUs.
_USES_FSDP, _USES_PARALLELISM = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM_CONFIG"
_REFUSED = {
    "FSDP_OFFLOAD_PARAMS": "fsdp_offload_params: true is not supported; leave it out",
    "FSDP_ACTIVATION_CHECKPOINTING": "fsdp_activation_checkpointing: give training.gradient_checkpointing instead",
}

_ELEMENTWISE = ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")


def plain_accelerate():
    """A context in which accelerate sees processes and no sharding."""
    return patch_environment(**{_USES_FSDP: "false", _USES_PARALLELISM: "false"})


def mesh_sizes(num_processes):
    """(groups, processes in each) that accelerate's configuration shards weights over; None where it does not.

    Raises:
        ConfigError: FSDP 1, an option without effect here, another parallelism, sizes that are not the processes'.
    """
    uses_fsdp, uses_sizes = _is_set(_USES_FSDP), _is_set(_USES_PARALLELISM)
    if not uses_fsdp:
        if uses_sizes and ParallelismConfig().total_size > 1 and ParallelismConfig().dp_shard_enabled:
            raise ConfigError("accelerate: parallelism_config shards weights by FSDP: add use_fsdp and fsdp_version: 2")
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("accelerate: weights are sharded by FSDP2 only: set fsdp_version: 2 in its configuration")
    for name, reason in _REFUSED.items():
        if _is_set(name):
            raise ConfigError(f"accelerate: {reason}")
    if num_processes == 1:
        return None
    if not uses_sizes:
        return 1, num_processes
    sizes = ParallelismConfig()
    if sizes.non_data_parallel_size > 1:
        raise ConfigError("accelerate: parallelism_config knows dp_replicate_size and dp_shard_size here, no other")
    if sizes.total_size != num_processes or not sizes.dp_shard_enabled:
        raise ConfigError(
            f"accelerate: dp_replicate_size {sizes.dp_replicate_size} x dp_shard_size {sizes.dp_shard_size} must be "
            f"the number of processes, {num_processes}, and dp_shard_size at least 2"
        )
    return sizes.dp_replicate_size, sizes.dp_shard_size


def _is_set(name):
    return bool(str_to_bool(os.environ.get(name) or "false"))


def shard(module, device, sizes):
    """Shard a module's weights in place; they come to the device unit by unit.

    Args:
        module: its ``shard_units()`` are gathered one at a time in a pass, what is outside them at the pass's begin.
            Its ``forward``, and the methods that it names in ``sharded_methods``, may be called from then on.
        device: of this process; sizes: of :func:`mesh_sizes`.

    Returns:
        the module.
    """
    groups, members = sizes
    shape, names = ((members,), ("shard",)) if groups == 1 else ((groups, members), ("replicate", "shard"))
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
    reshard = _is_set("FSDP_RESHARD_AFTER_FORWARD") or "FSDP_RESHARD_AFTER_FORWARD" not in os.environ
    for unit in module.shard_units():
        fully_shard(unit, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(module, mesh=mesh)
    for method in getattr(module, "sharded_methods", ()):
        register_fsdp_forward_method(module, method)
    return module


def check_can_be_sharded(settings):
    """Raises:
    ConfigError: an optimizer whose state does not follow the weights number by number; parts of those would not do.
    """
    name = settings.optimizer
    path = "torch.optim.AdamW" if name == "adamw" else name
    if path.rpartition(".")[0] != "torch.optim" or path.rpartition(".")[2] not in _ELEMENTWISE:
        raise ConfigError(
            f"training.optimizer = {name!r}: with the weights in shards (FSDP2) the optimizer must work number by "
            f"number: adamw, or torch.optim.<{', '.join(_ELEMENTWISE)}>"
        )


def is_sharded(module):
    return isinstance(module, FSDPModule)


def local(tensor):
    """This process's part of a sharded tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor):
    """The whole of a sharded tensor, for which all processes must call this; any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered_on_main(tensors):
    """Name -> whole tensor, in host memory, in the first process; the others give their parts and get {}.

    Where none is sharded, all get what they gave.
    """
    if not any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        return dict(tensors)
    is_main = dist.get_rank() == 0
    whole = {}
    for name, tensor in tensors.items():
        tensor = gathered(tensor.detach())
        if is_main:
            whole[name] = tensor.cpu()
    return whole


def offsets_of(tensor):
    """Where this process's part of a sharded tensor begins; None where it has none, or another process has the same."""
    mesh = tensor.device_mesh
    for place, placement in zip(mesh.get_coordinate(), tensor.placements, strict=True):
        if isinstance(placement, Replicate) and place != 0:
            return None
    if tensor.to_local().numel() == 0:
        return None
    return tuple(tensor.__create_chunk_list__()[0].offsets)


def part_of(whole, like):
    """The part of a whole tensor that this process holds of ``like``, a sharded one."""
    if not isinstance(like, DTensor):
        return whole
    part = like.to_local()
    if part.numel() == 0:
        return torch.empty(part.shape, dtype=whole.dtype)
    starts = like.__create_chunk_list__()[0].offsets
    return whole[tuple(slice(start, start + size) for start, size in zip(starts, part.shape, strict=True))]
