"""What a recipe of stage 2 asks for so that it fits: frozen weights quantised, or waiting in host memory."""

import os

import torch
from torch.nn.parallel import DistributedDataParallel

from wan_alpha.models.block_offload import offload_blocks
from wan_alpha.models.quantize import check_quantization, frozen_linears, quantize_base
from wan_alpha.stages.placeholders import checkpoint_blocks
from wan_alpha.stages.shard_limits import check_shards
from wan_alpha.training.sharding import mesh_sizes

# nf4: half a byte, a scale of 8 bits for 64 weights, a float32 for 256 of these.
BYTES_OF_A_WEIGHT = {"fp8": 1, "int8": 1, "nf4": 0.5 + 1 / 64 + 4 / (64 * 256)}


def check_low_memory(recipe):
    """Refuse, before anything is loaded, what cannot work here; what cannot anywhere, the recipe has refused.

    Args:
        recipe: a TrainDiTRecipe.

    Raises:
        ConfigError: a package that is not installed, or what FSDP2 cannot do.
    """
    if mesh_sizes(int(os.environ.get("WORLD_SIZE", 1))) is not None:
        check_shards(recipe)
    if recipe.model.quantization is not None:
        check_quantization(recipe.model.quantization)


def save_memory(module, recipe, device):
    """Quantise and offload the frozen weights within the blocks of each DiT that a recipe trains, in place, adapters
    being there; and of the text encoder where it is needed in each step.

    Args:
        module: a WanAlphaTrainingModule on the CPU; recipe: its TrainDiTRecipe; device: where it will compute.
    """
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    kind, puts_away = recipe.model.quantization, recipe.training.offload_blocks
    models = [dit for _, dit in module.experts()]
    if module.captions is not None:
        models.append(module.captions.text_encoder)
    if kind is not None:
        for model in models:
            quantize_base(model, kind, device, "cpu" if puts_away else None)
        _keep_from_sending(
            module, [model.get_submodule(name).weight for model in models for name in frozen_linears(model)]
        )
    if puts_away:
        for model in models:
            offload_blocks(model, device)
    if module.captions is not None and recipe.training.gradient_checkpointing:
        checkpoint_blocks(module.captions.text_encoder)


def _keep_from_sending(module, weights):
    # Data parallelism sends the first process's weights to the others at the start. All read the same files, and the
    # tensors of torchao cannot be sent.
    sought = set(map(id, weights))
    names = [name for name, parameter in module.named_parameters() if id(parameter) in sought]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)
