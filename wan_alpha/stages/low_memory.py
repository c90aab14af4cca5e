"""What a recipe of stage 2 asks for so that the DiT fits: its frozen weights quantised, or waiting in host memory."""

import os

import torch

from wan_alpha.errors import ConfigError
from wan_alpha.models.block_offload import offload_blocks
from wan_alpha.models.quantize import check_quantization, quantize_base
from wan_alpha.training.sharding import mesh_sizes


def check_low_memory(recipe):
    """Refuse, before anything is loaded, what cannot work here; what cannot anywhere, the recipe has refused.

    Args:
        recipe: a TrainDiTRecipe.

    Raises:
        ConfigError: a package that is not installed, or FSDP2, whose shards are of plain weights on the device.
    """
    asked = {
        f"model.quantization = {recipe.model.quantization!r}": recipe.model.quantization is not None,
        "training.offload_blocks": recipe.training.offload_blocks,
    }
    if any(asked.values()) and mesh_sizes(int(os.environ.get("WORLD_SIZE", 1))) is not None:
        name = next(name for name, is_asked in asked.items() if is_asked)
        raise ConfigError(f"{name}: FSDP2 shards plain weights on the devices alone; leave it out, or train without")
    if recipe.model.quantization is not None:
        check_quantization(recipe.model.quantization)


def save_memory(module, recipe, device):
    """Quantise and offload the frozen weights of each DiT that a recipe trains, in place, adapters being there.

    Args:
        module: a WanAlphaTrainingModule on the CPU; recipe: its TrainDiTRecipe; device: where it will compute.
    """
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    for _, dit in module.experts():
        if recipe.model.quantization is not None:
            quantize_base(dit, recipe.model.quantization, device, "cpu" if recipe.training.offload_blocks else None)
        if recipe.training.offload_blocks:
            offload_blocks(dit, device)
