"""Edge loss: the L1 distance of luma gradients."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wan_alpha.errors import ConfigError

EdgeKernel = Literal["central", "sobel"]

# ITU-R BT.601 studio-swing luma of 8-bit RGB, as the release uses it.
LUMA_WEIGHTS = (65.738 / 256, 129.057 / 256, 25.064 / 256)

# Sobel smooths with [1, 2, 1] across the derivative; the quarter keeps the scale of the central difference, so that
# one loss weight means the same with both kernels.
HORIZONTAL_KERNELS = {
    "central": [[0.0, 0.0, 0.0], [-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]],
    "sobel": [[-0.25, 0.0, 0.25], [-0.5, 0.0, 0.5], [-0.25, 0.0, 0.25]],
}


def gradient_magnitude(video: Tensor, kernel: EdgeKernel = "central") -> Tensor:
    """Gradient magnitude of luma, frame by frame.

        g = sqrt(gv^2 + gh^2 + 1e-6)        with zeros outside the frame

    Args:
        video: RGB, (B, 3, T, H, W), any range.
        kernel: "central", the difference [-1, 0, 1] that the release calls Sobel, or "sobel", the true one over 4.

    Returns:
        (B, T, H, W), in video's units per two pixels.

    Raises:
        ConfigError: unknown kernel.
    """
    if kernel not in HORIZONTAL_KERNELS:
        raise ConfigError(f"edge kernel {kernel!r} is unknown: choose one of {', '.join(HORIZONTAL_KERNELS)}")
    luma = torch.einsum("bcthw,c->bthw", video, video.new_tensor(LUMA_WEIGHTS))
    horizontal = video.new_tensor(HORIZONTAL_KERNELS[kernel])
    kernels = torch.stack([horizontal, horizontal.T])[:, None]
    gradients = F.conv2d(luma.flatten(0, 1)[:, None], kernels, padding=1)
    return gradients.square().sum(dim=1).add(1e-6).sqrt().view_as(luma)


def edge_loss(pred: Tensor, target: Tensor, kernel: EdgeKernel = "central") -> Tensor:
    """Mean absolute difference of the gradient magnitudes of two clips, (B, 3, T, H, W) -> scalar."""
    return F.l1_loss(gradient_magnitude(pred, kernel), gradient_magnitude(target, kernel))


class EdgeLoss(nn.Module):
    """`edge_loss` with its kernel fixed.

    Raises:
        ConfigError: unknown kernel.
    """

    def __init__(self, kernel: EdgeKernel = "central"):
        super().__init__()
        if kernel not in HORIZONTAL_KERNELS:
            raise ConfigError(f"edge kernel {kernel!r} is unknown: choose one of {', '.join(HORIZONTAL_KERNELS)}")
        self.kernel = kernel

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return edge_loss(pred, target, self.kernel)
