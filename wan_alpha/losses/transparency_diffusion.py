"""The transparency-aware diffusion loss of Wan-Alpha v2: how likely a frozen video model finds merged latents."""

from typing import Literal

import torch
from torch import Tensor, nn

from wan_alpha.errors import ConfigError

Variant = Literal["released", "bidirectional"]
VARIANTS = ("released", "bidirectional")


def transparency_diffusion_loss(
    pred: Tensor, target: Tensor, mask: Tensor, weight: Tensor | float, variant: Variant = "released"
) -> Tensor:
    """Velocity error of a frozen diffusion model, signed by what each latent cell holds.

        released:       mean clamp(m * w * (p - v)^2, 0, 1)
        bidirectional:  mean m * clamp(w * (p - v)^2, 0, 1)

    with m in {1, 0, -1} from `transparency_mask` and w the timestep weight. In the release the clamp removes what m
    makes negative: clear and semi-transparent cells contribute nothing. The paper describes both directions: opaque
    cells are pulled towards what the model expects and transparent ones pushed away from it. Clamping before the
    sign keeps that push alive and bounded, so that it stops where a cell's error has reached 1.

    Args:
        pred: predicted velocity p, (B, C, n+1, h, w).
        target: velocity v = noise - latents, the same shape.
        mask: m, (B, n+1, h, w).
        weight: w, one number or one per sample, (B,).
        variant: see above.

    Returns:
        Scalar, in [0, 1] if released, in [-1, 1] if bidirectional; computed in float32 at least.

    Raises:
        ConfigError: unknown variant, or a mask that does not lie on the latent grid.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"transparency loss variant {variant!r} is unknown: choose one of {', '.join(VARIANTS)}")
    if mask.shape != (pred.shape[0], *pred.shape[2:]):
        raise ConfigError(
            f"transparency mask {tuple(mask.shape)} does not lie on the latent grid of {tuple(pred.shape)}: "
            "expected (B, n+1, h, w)"
        )
    dtype = torch.promote_types(pred.dtype, torch.float32)
    error = (pred.to(dtype) - target.to(dtype)).square()
    sign = mask.unsqueeze(1).to(dtype)
    weight = torch.as_tensor(weight, dtype=dtype, device=pred.device).reshape(-1, 1, 1, 1, 1)
    if variant == "released":
        return (sign * weight * error).clamp(0, 1).mean()
    return (sign * (weight * error).clamp(0, 1)).mean()


class TransparencyDiffusionLoss(nn.Module):
    """`transparency_diffusion_loss` with its variant fixed.

    Raises:
        ConfigError: unknown variant.
    """

    def __init__(self, variant: Variant = "released"):
        super().__init__()
        if variant not in VARIANTS:
            raise ConfigError(f"transparency loss variant {variant!r} is unknown: choose one of {', '.join(VARIANTS)}")
        self.variant = variant

    def forward(self, pred: Tensor, target: Tensor, mask: Tensor, weight: Tensor | float) -> Tensor:
        return transparency_diffusion_loss(pred, target, mask, weight, self.variant)
