"""A model whose frozen weights wait in host memory: each block's come to the device for its pass, and go after it.

Nothing is written back, since they do not train: a copy is made before each of a block's passes and dropped behind it.
With gradient checkpointing the pass that the backward makes again holds the copies until its gradients are there.
"""

import torch
from diffsynth.core.offload_training.memory_buffer import PinnedArenaPool
from torch import nn

from wan_alpha.models.quantize import frozen_linears


def offload_blocks(model, device):
    """Keep the weights of a model's frozen linear layers, within its blocks, in host memory from now on.

    The module's own parameters stand empty between the passes, so that moving the model moves the rest alone:
    embeddings, head, norms, biases, modulations and adapters.

    Args:
        model: a ``WanModel`` or ``WanTextEncoder`` on the CPU, changed in place; what is to train has requires_grad.
        device: where the blocks compute.
    """
    # Memory that a device reads by itself; PyTorch's own allocation of it rounds each weight up to a power of two.
    pool = PinnedArenaPool.from_model(model.blocks) if torch.device(device).type == "cuda" else None
    for number, block in enumerate(model.blocks):
        names = [name for name in frozen_linears(model) if name.startswith(f"blocks.{number}.")]
        _BlockWeights(block, [model.get_submodule(name) for name in names], device, pool)


def place(model, device, offloads=False):
    """Move a model that does not train to its device; with ``offloads`` its blocks' weights stay in host memory."""
    if offloads:
        offload_blocks(model.requires_grad_(False), device)
    return model.to(device)


def copy_to(weight, device):
    """A frozen weight on the device; the copy lives as long as a pass, or the gradient of one, needs it."""
    return weight.to(device, non_blocking=True)


class _BlockWeights:
    """The weights of a block's frozen layers in host memory, and the hooks that lend them to its passes."""

    def __init__(self, block, layers, device, pool):
        self.layers, self.device = layers, device
        self.weights = [_in_host_memory(layer.weight, pool) for layer in layers]
        for layer in layers:
            layer.weight = nn.Parameter(torch.empty(0, dtype=layer.weight.dtype), requires_grad=False)
        self.empty = []
        block.register_forward_pre_hook(self._bring)
        # Also where a pass ends by an exception, as the one that checkpointing makes again does once it has enough.
        block.register_forward_hook(self._put_back, always_call=True)

    def _bring(self, block, inputs):
        self.empty = [layer.weight for layer in self.layers]
        for layer, weight in zip(self.layers, self.weights, strict=True):
            layer._parameters["weight"] = copy_to(weight, self.device)

    def _put_back(self, block, inputs, output):
        for layer, empty in zip(self.layers, self.empty, strict=True):
            layer._parameters["weight"] = empty


def _in_host_memory(weight, pool):
    # Only a plain tensor is all in its bytes: a quantised one has scales besides.
    return pool.allocate_like(weight) if pool is not None and type(weight) is nn.Parameter else weight.to("cpu")
