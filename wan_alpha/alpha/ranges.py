"""Every change of value range has a name here: [0, 1], [-1, 1], 8 bits; straight and premultiplied colour."""

import numpy as np
import torch
from torch import Tensor


def unit_to_model(video: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1], any shape: 2x - 1."""
    return video * 2 - 1


def model_to_unit(video: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], any shape: (x + 1) / 2. Values outside stay outside; nothing is clamped."""
    return (video + 1) / 2


def unit_to_uint8(video: Tensor) -> Tensor:
    """[0, 1] -> 0..255, any shape: clamped, then rounded to the nearest level.

    Truncation instead of rounding would put 47 of the 256 levels off by one on a round trip.
    """
    # bfloat16 has eight significant bits: scaling in it would already lose levels.
    scaled = video.to(torch.promote_types(video.dtype, torch.float32)).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8)


def uint8_to_unit(levels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """0..255 -> [0, 1], any shape: x / 255. `unit_to_uint8` is its exact inverse on all 256 levels."""
    return (levels.to(torch.promote_types(dtype, torch.float32)) / 255).to(dtype)


def model_to_uint8(video: Tensor) -> Tensor:
    """[-1, 1] -> 0..255, any shape: clamped, then rounded to the nearest level."""
    return unit_to_uint8(model_to_unit(video.to(torch.promote_types(video.dtype, torch.float32))))


def uint8_to_model(levels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """0..255 -> [-1, 1], any shape. `model_to_uint8` is its exact inverse on all 256 levels."""
    return unit_to_model(uint8_to_unit(levels, torch.promote_types(dtype, torch.float32))).to(dtype)


def alpha_to_model(alpha: Tensor) -> Tensor:
    """Alpha as the VAE takes it: (B, 1, T, H, W) in [0, 1] -> three equal channels 2a - 1, (B, 3, T, H, W)."""
    assert alpha.shape[1] == 1, f"alpha has one channel, got shape {tuple(alpha.shape)}"
    return unit_to_model(alpha).repeat_interleave(3, dim=1)


def model_to_alpha(video: Tensor) -> Tensor:
    """Alpha from a decoder's raw output: (B, 3, T, H, W) -> (B, 1, T, H, W) in [0, 1].

    a = (mean over channels of clamp(x, -1, 1) + 1) / 2        (released inference)
    """
    return model_to_unit(video.clamp(-1, 1).mean(dim=1, keepdim=True))


def rgba_frames(rgb: Tensor, alpha: Tensor, depth: int = 8) -> np.ndarray:
    """One clip as frames for files.

    Args:
        rgb: straight, (1, 3, T, H, W) in [-1, 1]; alpha: (1, 1, T, H, W) in [0, 1].
        depth: bits of a channel, 8 or 16.

    Returns:
        (T, H, W, 4) uint8 or uint16 straight RGBA, clamped and rounded to the nearest level.
    """
    if depth == 16:
        unit = torch.cat([model_to_unit(rgb.float()), alpha.float()], dim=1).clamp(0, 1)
        levels = (unit.cpu().double() * 65535).round().to(torch.int32)
        return levels[0].permute(1, 2, 3, 0).numpy().astype(np.uint16)
    levels = torch.cat([model_to_uint8(rgb), unit_to_uint8(alpha)], dim=1)
    return levels[0].permute(1, 2, 3, 0).contiguous().cpu().numpy()


def straight_to_premultiplied(rgb_straight: Tensor, alpha: Tensor) -> Tensor:
    """P = a*F. Both in [0, 1]; alpha broadcasts to rgb_straight. Model-space RGB must be brought to [0, 1] first."""
    return rgb_straight * alpha


def premultiplied_to_straight(rgb_premultiplied: Tensor, alpha: Tensor) -> Tensor:
    """F = P/a, and 0 where alpha is 0, for there is no colour to recover. Both in [0, 1]; the result is clamped to it.

    Gradients stay finite at alpha 0.
    """
    is_clear = alpha == 0
    quotient = rgb_premultiplied / torch.where(is_clear, torch.ones_like(alpha), alpha)
    return torch.where(is_clear, torch.zeros_like(quotient), quotient.clamp(0, 1))
