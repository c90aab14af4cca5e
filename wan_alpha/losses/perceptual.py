"""Perceptual loss: distance of VGG16 features."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wan_alpha.errors import CheckpointError
from wan_alpha.losses.backbone_weights import find_backbone_weights, read_backbone_weights


def perceptual_loss(pred: Tensor, target: Tensor, features: nn.Module) -> Tensor:
    """Mean squared difference of the features of two clips' frames.

        mean (phi(p) - phi(q))^2        (Johnson et al. 2016; Wan-Alpha takes VGG16 relu2_2)

    The target's features are computed without a graph.

    Args:
        pred, target: (B, 3, T, H, W), in the range that `features` expects.
        features: frames (N, 3, H, W) -> any shape.

    Returns:
        Scalar.
    """
    pred_frames, target_frames = (video.transpose(1, 2).flatten(0, 1) for video in (pred, target))
    with torch.no_grad():
        expected = features(target_frames)
    return F.mse_loss(features(pred_frames), expected)


def vgg16_relu2_2(weights: str | Path | None = None) -> nn.Sequential:
    """VGG16 up to relu2_2, frozen: (N, 3, H, W) in [0, 1] -> (N, 128, H/2, W/2).

    The release feeds it [0, 1] as it is, without the ImageNet normalisation.

    Args:
        weights: a file with keys "0.weight", "0.bias", "2.weight", ... or a whole torchvision VGG16
            ("features.0.weight", ...), .safetensors or .pth. None: torchvision's cache.

    Raises:
        ConfigError: no such file.
        CheckpointError: the file holds no VGG16.
    """
    path = find_backbone_weights("vgg16", weights, "vgg16")
    network = vgg16_layers()
    found = {key.removeprefix("features."): tensor for key, tensor in read_backbone_weights(path).items()}
    expected = network.state_dict()
    wrong = [key for key, own in expected.items() if key not in found or found[key].shape != own.shape]
    if wrong:
        raise CheckpointError(
            f"{path} holds no VGG16: expected {', '.join(sorted(wrong))} in VGG16's shapes (or the same under "
            f"features.), found {', '.join(sorted(found)[:8]) or 'nothing'}"
        )
    network.load_state_dict({key: found[key] for key in expected})
    return network.requires_grad_(False).eval()


def vgg16_layers() -> nn.Sequential:
    """The layers of :func:`vgg16_relu2_2`, trainable, with PyTorch's random start."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class VGGPerceptualLoss(nn.Module):
    """`perceptual_loss` on VGG16 relu2_2, for clips in [-1, 1].

    Args:
        weights: as `vgg16_relu2_2`; features: a network in place of that file's.

    Raises:
        ConfigError, CheckpointError: as `vgg16_relu2_2`.
    """

    def __init__(self, weights: str | Path | None = None, features: nn.Module | None = None):
        super().__init__()
        self.features = vgg16_relu2_2(weights) if features is None else features

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """pred, target: (B, 3, T, H, W), [-1, 1] -> scalar."""
        return perceptual_loss((pred + 1) / 2, (target + 1) / 2, self.features)
