"""What a run will need, counted from shapes: no weight is read and nothing is computed.

Activations are those that autograd would keep, found by a pass over tensors that have shapes and no content (PyTorch's
fake tensors). Not counted: what an operation needs while it runs, and what an allocator leaves unused.
"""

import math
import os

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from wan_alpha.training.config import dotted_fields

FLOAT32_BYTES = 4
GIB = 2**30


def without_content(module):
    """Give a module of the meta device tensors of the CPU without content; call it within a FakeTensorMode."""
    for part in module.modules():
        for tensors, make in ((part._parameters, _parameter), (part._buffers, _empty)):
            for name, tensor in tensors.items():
                tensors[name] = None if tensor is None else make(tensor)
    return module


def _empty(tensor):
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _parameter(tensor):
    return nn.Parameter(_empty(tensor), requires_grad=tensor.requires_grad)


def activation_bytes(module, make_loss, dtype):
    """Bytes that autograd keeps between the passes, module's own tensors not counted.

    Args:
        module: on the meta device; its tensors are replaced.
        make_loss: (module) -> a tensor that depends on the trained parameters; what it makes has no content.
        dtype: torch.bfloat16 for autocast to it, else float32.
    """
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        without_content(module)
        own = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            make_loss(module)
        return sum(storage.nbytes() for key, storage in kept.items() if key not in own)


def weight_bytes(module):
    """(bytes of all parameters, number of trained ones)."""
    parameters = list(module.parameters())
    return sum(p.numel() * p.element_size() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def training_memory(frozen_bytes, num_trained, activations, settings, shards=1):
    """Name -> bytes of one process's device memory: weights, what training adds to them, activations.

    Args:
        frozen_bytes: of the weights that are not trained; num_trained: numbers in those that are, all float32.
        settings: TrainingSettings; shards: processes that weights are sharded over.
    """
    memory = {
        "frozen weights": frozen_bytes / shards,
        "trained weights, gradients, two moments": 4 * FLOAT32_BYTES * num_trained / shards,
    }
    if settings.ema_decay is not None and not settings.ema_on_cpu:
        memory["average of the weights"] = FLOAT32_BYTES * num_trained / shards
    memory["activations of one micro-batch"] = activations
    return memory | {"in all": sum(memory.values())}


def checkpoint_bytes(num_trained, settings, exported=0):
    """Bytes of one checkpoint on disk, but for its headers: weights, two moments, average, exported numbers."""
    return FLOAT32_BYTES * (num_trained * (3 + (settings.ema_decay is not None)) + exported)


def num_steps(num_samples, settings, num_processes):
    """(samples of a step, steps of an epoch, steps in all)."""
    step_size = settings.batch_size * settings.gradient_accumulation * num_processes
    per_epoch = math.ceil(num_samples / step_size)
    limits = [settings.max_steps, settings.num_epochs and settings.num_epochs * per_epoch]
    return step_size, per_epoch, min(limit for limit in limits if limit is not None)


def print_foresight(recipe, tables, summary=""):
    """Print the resolved recipe and tables, in the first process.

    Args:
        recipe: a Recipe; tables: title -> (name -> text); summary: of the data, as the run's start has it.
    """
    if int(os.environ.get("RANK", 0)) != 0:
        return
    values = {}
    for name, _ in dotted_fields(type(recipe)):
        value = recipe
        for part in name.split("."):
            value = getattr(value, part)
        values[name] = "none" if value is None else str(value)
    for title, rows in {"recipe": values, **tables}.items():
        width = max(map(len, rows))
        print("\n".join([f"{title}:", *(f"  {name:<{width}}  {value}" for name, value in rows.items()), ""]))
    if summary:
        print(summary, end="\n\n")
    print("dry run: nothing was written")


def show_bytes(count):
    """ "1.25 GiB (1342177280 bytes)"; smaller ones in MiB."""
    shown = f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.2f} MiB"
    return f"{shown} ({count:.0f} bytes)"
