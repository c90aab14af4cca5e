"""LPIPS as a perceptual loss, with every weight read from this machine."""

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from wan_alpha.errors import CheckpointError
from wan_alpha.losses.backbone_weights import find_backbone_weights, read_backbone_weights

LpipsNetwork = Literal["alex", "vgg", "squeeze"]


def lpips_network(network: LpipsNetwork = "alex", weights: str | Path | None = None) -> nn.Module:
    """The lpips package's network, frozen: its own linear heads on a backbone read from a file.

    Args:
        network: which backbone.
        weights: torchvision's state dict of the backbone ("features.0.weight", ...), .pth or .safetensors.
            None: torchvision's cache.

    Raises:
        ConfigError: no such file.
        CheckpointError: the file holds another network.
    """
    backbone_name = {"vgg": "vgg16"}.get(network, network)
    path = find_backbone_weights(backbone_name, weights, "lpips")
    import lpips

    # On the meta device the package's classifier layers, which LPIPS drops, cost neither time nor memory.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        model = lpips.LPIPS(pretrained=False, net=network, pnet_rand=True, verbose=False)
    found = read_backbone_weights(path)
    heads = read_backbone_weights(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{network}.pth")
    state = {}
    for key, own in model.state_dict().items():
        if key.startswith("net."):
            _, _, layer = key.split(".", 2)  # "net.slice2.5.weight" is torchvision's "features.5.weight"
            source = f"features.{layer}"
            if source not in found or found[source].shape != own.shape:
                raise CheckpointError(
                    f"{path} holds no {backbone_name}: expected {source} of shape {tuple(own.shape)}, "
                    f"found {tuple(found[source].shape) if source in found else ', '.join(sorted(found)[:8])}"
                )
            state[key] = found[source]
        elif key.startswith("lin"):
            state[key] = heads[key.replace("lins.", "lin")]  # each head is in the module twice
        else:
            state[key] = own
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


class LPIPSLoss(nn.Module):
    """Mean LPIPS distance over frames (Zhang et al. 2018), for clips in [-1, 1].

    Raises:
        ConfigError, CheckpointError: as `lpips_network`.
    """

    def __init__(self, network: LpipsNetwork = "alex", weights: str | Path | None = None):
        super().__init__()
        self.network = lpips_network(network, weights)

    def train(self, mode: bool = True) -> "LPIPSLoss":
        """Set the mode of this module alone: the network's heads hold dropout, a measure of distance must not."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """pred, target: (B, 3, T, H, W), [-1, 1], H and W at least 31 (alex, squeeze) or 16 (vgg) -> scalar."""
        pred_frames, target_frames = (video.transpose(1, 2).flatten(0, 1) for video in (pred, target))
        return self.network(pred_frames, target_frames).mean()
