"""Masks on the latent grid that tell the losses and the noise where the subject is."""

import numpy as np
import torch
from torch import Tensor

from wan_alpha.alpha.ellipse import enlarge_to_cover, fit_ellipse, gaussian
from wan_alpha.errors import ConfigError

TEMPORAL_FACTOR = 4


def _cells(alpha: Tensor, spatial_factor: int) -> tuple[Tensor, Tensor]:
    """Alpha's samples, sorted by latent cell: the first frame (B, 1, h, w, s^2), the rest (B, n, h, w, 4*s^2)."""
    fits = alpha.ndim == 5 and alpha.shape[1] == 1
    if not fits or alpha.shape[2] % TEMPORAL_FACTOR != 1 or any(size % spatial_factor for size in alpha.shape[3:]):
        raise ConfigError(
            f"alpha of shape {tuple(alpha.shape)} does not lie on the latent grid: expected (B, 1, T, H, W) with "
            f"T = {TEMPORAL_FACTOR}n+1 and H, W multiples of {spatial_factor}"
        )

    def sort(frames: Tensor, group: int) -> Tensor:
        blocks = frames.unflatten(-1, (-1, spatial_factor)).unflatten(-3, (-1, spatial_factor))
        blocks = blocks.unflatten(1, (-1, group))
        return blocks.permute(0, 1, 3, 5, 2, 4, 6).flatten(-3)

    return sort(alpha[:, 0, :1], 1), sort(alpha[:, 0, 1:], TEMPORAL_FACTOR)


def average_to_latent_grid(alpha: Tensor, spatial_factor: int = 8) -> Tensor:
    """Mean alpha of each latent cell: the first frame alone, then four frames at a time.

    Args:
        alpha: (B, 1, T, H, W), [0, 1], T = 4n+1, H and W multiples of spatial_factor.
        spatial_factor: pixels per latent cell: 8 for the Wan2.1 VAE, 16 for the Wan2.2 TI2V VAE.

    Returns:
        (B, n+1, H/spatial_factor, W/spatial_factor), [0, 1].

    Raises:
        ConfigError: alpha does not lie on the grid.
    """
    first, rest = _cells(alpha, spatial_factor)
    return torch.cat([first.mean(dim=-1), rest.mean(dim=-1)], dim=1)


def transparency_mask(alpha: Tensor, spatial_factor: int = 8, tolerance: float = 5e-6) -> Tensor:
    """Classify latent cells for the transparency-aware diffusion loss: 1 keep, -1 push away, 0 leave out.

    A cell is 1 where alpha is fully opaque throughout, -1 where it is fully clear or semi-transparent throughout,
    0 where it is mixed. In the first latent frame, which stands for a single frame, everything that is not fully
    opaque is -1 (Wan-Alpha v2, stage 1).

    Args:
        alpha, spatial_factor: as in `average_to_latent_grid`.
        tolerance: how far from 0 or 1 alpha may be and still count as clear or opaque. The default is a rounding
            error; a matte that went through a lossy codec wants a few 1/255.

    Returns:
        (B, n+1, h, w), int8.

    Raises:
        ConfigError: alpha does not lie on the grid.
    """
    first, rest = _cells(alpha, spatial_factor)
    opaque_first = (first >= 1 - tolerance).all(dim=-1)
    opaque, clear = rest >= 1 - tolerance, rest <= tolerance
    semi = ~opaque & ~clear
    away = clear.all(dim=-1) | semi.all(dim=-1)
    return torch.cat([2 * opaque_first.to(torch.int8) - 1, opaque.all(dim=-1).to(torch.int8) - away.to(torch.int8)], 1)


def gaussian_ellipse(alpha: Tensor, spatial_factor: int = 8, binarize_above: float = 0.75) -> Tensor:
    """Where the subject stands: per latent frame one Gaussian, shaped by an ellipse fitted to alpha.

    Alpha is binarised and averaged to the latent grid; each frame's ellipse is fitted by principal components
    (`fit_ellipse`), enlarged until it covers 98% of the subject's cells (`enlarge_to_cover`) and read as a Gaussian
    that spans [0, 1] (`gaussian`). A frame without subject is all zeros. (Wan-Alpha v2, stage 2.)

    Args:
        alpha, spatial_factor: as in `average_to_latent_grid`.
        binarize_above: alpha above it belongs to the subject, [0, 1]. The release compares 2*alpha - 1 with 0.5.

    Returns:
        (B, n+1, h, w), float32, [0, 1], on alpha's device.

    Raises:
        ConfigError: alpha does not lie on the grid.
    """
    shape_threshold = 0.2
    coverage = average_to_latent_grid((alpha > binarize_above).float(), spatial_factor)

    def one_frame(cells: np.ndarray) -> np.ndarray:
        ellipse = fit_ellipse(cells, shape_threshold)
        if ellipse is None:
            return np.zeros_like(cells)
        return gaussian(enlarge_to_cover(ellipse, cells > shape_threshold), *cells.shape)

    frames = [one_frame(cells) for cells in coverage.flatten(0, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(frames)).float().view_as(coverage).to(alpha.device)


def shifted_noise(noise: Tensor, ellipse: Tensor, shift: float = 0.05) -> Tensor:
    """Noise whose mean is raised outside the subject: noise + (1 - G)*shift (Wan-Alpha v2, training and sampling).

    Args:
        noise: (B, C, n+1, h, w).
        ellipse: G, (B, n+1, h, w) or, the same for all samples, (n+1, h, w); [0, 1].
        shift: mean where G is 0.

    Returns:
        (B, C, n+1, h, w), in noise's dtype.

    Raises:
        ConfigError: the ellipse does not lie on the noise's grid.
    """
    if noise.ndim != 5 or ellipse.ndim not in (3, 4) or ellipse.shape[-3:] != noise.shape[-3:]:
        raise ConfigError(
            f"ellipse of shape {tuple(ellipse.shape)} does not lie on the latent grid of noise {tuple(noise.shape)}: "
            "expected (B, n+1, h, w) or (n+1, h, w) for noise (B, C, n+1, h, w)"
        )
    raised = (1 - ellipse) * shift
    return noise + raised.unsqueeze(-4).to(noise)
