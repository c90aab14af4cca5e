"""Stage 1's loss: what the RGBA VAE reconstructs, seen as hard render, soft render and alpha."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wan_alpha.alpha.composite import Background, hard_render, soft_render
from wan_alpha.alpha.ranges import alpha_to_model, model_to_unit
from wan_alpha.errors import ConfigError
from wan_alpha.losses.edge import EdgeKernel, EdgeLoss
from wan_alpha.losses.lpips_loss import LPIPSLoss
from wan_alpha.losses.perceptual import VGGPerceptualLoss
from wan_alpha.losses.temporal import temporal_consistency_loss

STREAMS = ("rgb_hard", "rgb_soft", "alpha")
TERMS = tuple(f"{kind}_{stream}" for stream in STREAMS for kind in ("l1", "perceptual", "edge"))
TEMPORAL_TERMS = ("temporal_rgb", "temporal_alpha")

Perceptual = Literal["vgg16", "lpips", "none"]


def _perceptual_loss(perceptual: Perceptual, weights: str | Path | None) -> nn.Module | None:
    if perceptual == "vgg16":
        return VGGPerceptualLoss(weights)
    if perceptual == "lpips":
        return LPIPSLoss(weights=weights)
    if perceptual == "none":
        return None
    raise ConfigError(f"perceptual = {perceptual!r} is unknown: choose one of vgg16, lpips, none")


class RGBAReconstructionLoss(nn.Module):
    """L1, perceptual and edge loss on three streams (Wan-Alpha Eq. 7-13).

        total = sum over streams s and kinds k of weight[k_s] * k(prediction_s, target_s)

    The streams are the hard render, the soft render and alpha. One colour renders prediction and target. Prediction
    and target are each rendered with their own alpha; the predicted one is the decoder's raw three-channel output,
    mapped to [0, 1] without clamping, and renders channel by channel. Computed in float32, under autocast too.

    Args:
        perceptual_weights: file with the perceptual network's weights; None: torchvision's cache.
        perceptual: "vgg16" (as released), "lpips" (AlexNet backbone) or "none", which leaves its three terms out.
        edge_kernel: "central" (as released) or "sobel".
        weights: term -> weight, for any of TERMS (1 if not given) and TEMPORAL_TERMS (0 if not given). The temporal
            terms are computed, on soft render and alpha, only where their weight is above 0.
        hard_threshold: largest alpha, [0, 1], that counts as clear in the hard renders; the release has 0.

    Raises:
        ConfigError: an unknown option or term, or the perceptual network's weights are not there.
        CheckpointError: the weight file holds something else.
    """

    def __init__(
        self,
        perceptual_weights: str | Path | None = None,
        perceptual: Perceptual = "vgg16",
        edge_kernel: EdgeKernel = "central",
        weights: Mapping[str, float] | None = None,
        hard_threshold: float = 0.0,
    ):
        super().__init__()
        weights = dict(weights or {})
        terms = [term for term in TERMS if perceptual != "none" or not term.startswith("perceptual")]
        unknown = sorted(set(weights) - set(terms) - set(TEMPORAL_TERMS))
        if unknown:
            raise ConfigError(
                f"loss weights name {', '.join(unknown)}: with perceptual = {perceptual!r} the terms are "
                f"{', '.join([*terms, *TEMPORAL_TERMS])}"
            )
        self.weights = {term: 1.0 for term in terms} | {term: 0.0 for term in TEMPORAL_TERMS} | weights
        self.perceptual = _perceptual_loss(perceptual, perceptual_weights)
        self.edge = EdgeLoss(edge_kernel)
        self.hard_threshold = hard_threshold

    def forward(
        self,
        pred_rgb: Tensor,
        pred_alpha: Tensor,
        rgb: Tensor,
        alpha: Tensor,
        hard_background: Background,
        soft_background: Background,
    ) -> dict[str, Tensor]:
        """Compare a raw reconstruction with its target.

        Args:
            pred_rgb, pred_alpha: raw decoder outputs, (B, 3, T, H, W), nominally [-1, 1], not clamped.
            rgb: straight colour, (B, 3, T, H, W), [-1, 1].
            alpha: (B, 1, T, H, W), [0, 1].
            hard_background, soft_background: RGB in [-1, 1], three floats or (B, 3).

        Returns:
            The unweighted terms by name, and "total", their weighted sum. All scalars, float32.

        Raises:
            ConfigError: shapes that do not fit each other.
        """
        if pred_alpha.shape != pred_rgb.shape or pred_rgb.shape != rgb.shape:
            raise ConfigError(
                f"pred_rgb {tuple(pred_rgb.shape)}, pred_alpha {tuple(pred_alpha.shape)} and rgb {tuple(rgb.shape)} "
                "differ: expected (B, 3, T, H, W) for all three"
            )
        # Squared errors of near-black gradients drown in bfloat16.
        with torch.autocast(pred_rgb.device.type, enabled=False):
            pred_rgb, pred_alpha, rgb, alpha = (
                clip.to(torch.promote_types(clip.dtype, torch.float32)) for clip in (pred_rgb, pred_alpha, rgb, alpha)
            )
            pred_coverage = model_to_unit(pred_alpha)
            streams = {
                "rgb_hard": (
                    hard_render(pred_rgb, pred_coverage, hard_background, self.hard_threshold),
                    hard_render(rgb, alpha, hard_background, self.hard_threshold),
                ),
                "rgb_soft": (
                    soft_render(pred_rgb, pred_coverage, soft_background),
                    soft_render(rgb, alpha, soft_background),
                ),
                "alpha": (pred_alpha, alpha_to_model(alpha)),
            }
            terms = {}
            for stream, (pred, target) in streams.items():
                terms[f"l1_{stream}"] = F.l1_loss(pred, target)
                if self.perceptual is not None:
                    terms[f"perceptual_{stream}"] = self.perceptual(pred, target)
                terms[f"edge_{stream}"] = self.edge(pred, target)
            for term, stream in zip(TEMPORAL_TERMS, ("rgb_soft", "alpha"), strict=True):
                if self.weights[term] > 0:
                    terms[term] = temporal_consistency_loss(*streams[stream])
            terms["total"] = torch.stack([self.weights[term] * value for term, value in terms.items()]).sum()
        return terms
