"""Weights of the image networks behind the perceptual losses: from a file or torchvision's cache, never the network."""

from pathlib import Path

import torch
from torch import Tensor

from wan_alpha.errors import ConfigError

TORCHVISION_FILES = {
    "vgg16": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""Network -> the name under which torchvision publishes and caches its ImageNet weights."""


def find_backbone_weights(network: str, path: str | Path | None, option: str) -> Path:
    """Where a backbone's weights are.

    Args:
        network: a key of TORCHVISION_FILES.
        path: the user's file, or None for torchvision's cache.
        option: the value of `perceptual` that needs them, for the message.

    Returns:
        An existing file.

    Raises:
        ConfigError: there is no such file; says which one goes where and what else can be chosen.
    """
    name = TORCHVISION_FILES[network]
    candidate = Path(path) if path is not None else Path(torch.hub.get_dir()) / "checkpoints" / name
    if candidate.is_file():
        return candidate
    others = " | ".join(f'"{other}"' for other in ("vgg16", "lpips", "none") if other != option)
    raise ConfigError(
        f'perceptual = "{option}" needs the ImageNet weights of {network}, and {candidate} is not there. '
        f"Nothing is downloaded: put torchvision's {name} there, give the path of your copy, "
        f"or choose perceptual = {others}"
    )


def read_backbone_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors or, safely, from a .pth file.

    Raises:
        CheckpointError: the file is not what its name says.
    """
    # Losses and weights stand on one floor; only reading a file needs the neighbour.
    from wan_alpha.weights.io import load_state_dict

    return load_state_dict(path)
