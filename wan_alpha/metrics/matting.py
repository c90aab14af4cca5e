"""Video matting metrics, scaled as in the RobustVideoMatting evaluation (Lin et al. 2022).

Clips in, one number per frame out: alpha (B, 1, T, H, W) and foreground (B, 3, T, H, W), all [0, 1] -> (B, T) float64.
Smaller is better. Every function raises DataError where shapes do not fit.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import label
from torch import Tensor

from wan_alpha.errors import DataError
from wan_alpha.metrics.clips import as_pair

GRADIENT_SIGMA = 1.4
# The Gaussian is cut where it falls below this value.
GRADIENT_CUTOFF = 1e-2
CONNECTIVITY_STEPS = tuple(step / 10 for step in range(11))
CONNECTIVITY_TOLERANCE = 0.15


def alpha_mad(pred: Tensor, alpha: Tensor) -> Tensor:
    """Mean absolute difference, x1e3."""
    pred, alpha = as_pair(pred, alpha, 1)
    return 1e3 * (pred - alpha).abs().mean(dim=(1, 3, 4))


def alpha_mse(pred: Tensor, alpha: Tensor) -> Tensor:
    """Mean squared error, x1e3."""
    pred, alpha = as_pair(pred, alpha, 1)
    return 1e3 * (pred - alpha).square().mean(dim=(1, 3, 4))


def alpha_dtssd(pred: Tensor, alpha: Tensor) -> Tensor:
    """Root mean square of the error's change from frame to frame (Erofeev et al. 2015), x1e2; the first frame has 0."""
    pred, alpha = as_pair(pred, alpha, 1)
    change = (pred - alpha).diff(dim=2).square().mean(dim=(1, 3, 4)).sqrt()
    return 1e2 * F.pad(change, (1, 0))


def _stretched(frames: Tensor) -> Tensor:
    """Each frame's values stretched to [0, 1]; a constant frame becomes 0. (N, 1, H, W)."""
    low, high = frames.amin(dim=(1, 2, 3), keepdim=True), frames.amax(dim=(1, 2, 3), keepdim=True)
    spread = high - low
    return (frames - low) / torch.where(spread == 0, 1.0, spread)


def _gaussian_gradient(frames: Tensor) -> Tensor:
    """Magnitude of the gradient through first-order Gaussian derivative filters of unit energy. (N, 1, H, W)."""
    peak = math.sqrt(2 * math.pi) * GRADIENT_SIGMA
    reach = math.ceil(GRADIENT_SIGMA * math.sqrt(-2 * math.log(peak * GRADIENT_CUTOFF)))
    offsets = torch.arange(-reach, reach + 1, dtype=frames.dtype)
    bell = torch.exp(-0.5 * (offsets / GRADIENT_SIGMA) ** 2) / peak
    slope = -offsets * bell / GRADIENT_SIGMA**2
    kernel = bell[:, None] * slope[None, :]
    kernel = kernel / kernel.square().sum().sqrt()
    padded = F.pad(frames, (reach, reach, reach, reach), mode="replicate")
    both = F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])
    return both.square().sum(dim=1, keepdim=True).sqrt()


def alpha_grad(pred: Tensor, alpha: Tensor) -> Tensor:
    """Gradient error (Rhemann et al. 2009): sum of squared differences of gradient magnitudes, /1e3."""
    pred, alpha = as_pair(pred, alpha, 1)
    num_samples, _, num_frames = pred.shape[:3]
    magnitudes = [_gaussian_gradient(_stretched(clip.transpose(1, 2).flatten(0, 1))) for clip in (pred, alpha)]
    error = (magnitudes[0] - magnitudes[1]).square().sum(dim=(1, 2, 3))
    return error.view(num_samples, num_frames) / 1e3


def _connectivity_error(pred: np.ndarray, alpha: np.ndarray) -> float:
    """One frame's connectivity error, (H, W) each.

    A pixel's level is the last threshold at which it still belongs to the largest 4-connected region where both
    mattes reach the threshold. What a matte has above that level, if 0.15 or more, counts as unconnected.
    """
    level = np.ones(alpha.shape)
    belongs = np.ones(alpha.shape, dtype=bool)
    for below, threshold in zip(CONNECTIVITY_STEPS[:-1], CONNECTIVITY_STEPS[1:], strict=True):
        regions, num_regions = label((pred >= threshold) & (alpha >= threshold))
        largest = np.zeros(alpha.shape, dtype=bool)
        if num_regions:
            largest = regions == 1 + np.bincount(regions.ravel())[1:].argmax()
        level[belongs & ~largest] = below
        belongs &= largest
    connected = []
    for matte in (pred, alpha):
        excess = matte - level
        connected.append(1 - np.where(excess >= CONNECTIVITY_TOLERANCE, excess, 0.0))
    return float(np.abs(connected[0] - connected[1]).sum())


def alpha_conn(pred: Tensor, alpha: Tensor) -> Tensor:
    """Connectivity error (Rhemann et al. 2009), /1e3."""
    pred, alpha = as_pair(pred, alpha, 1)
    frames = zip(pred[:, 0].flatten(0, 1).numpy(), alpha[:, 0].flatten(0, 1).numpy(), strict=True)
    errors = torch.tensor([_connectivity_error(*frame) for frame in frames], dtype=torch.float64)
    return errors.view(pred.shape[0], pred.shape[2]) / 1e3


def _mean_where_visible(error: Tensor, alpha: Tensor) -> Tensor:
    if alpha.shape != (error.shape[0], 1, *error.shape[2:]):
        raise DataError(f"alpha of shape {tuple(alpha.shape)} does not fit a foreground of shape {tuple(error.shape)}")
    visible = (alpha > 0).cpu().double()
    count = error.shape[1] * visible.sum(dim=(1, 3, 4))
    return (error * visible).sum(dim=(1, 3, 4)) / count.clamp(min=1)


def foreground_mad(pred: Tensor, foreground: Tensor, alpha: Tensor) -> Tensor:
    """Mean absolute difference of straight colour where the true alpha is above 0, x1e3; 0 for an empty frame."""
    pred, foreground = as_pair(pred, foreground, 3)
    return 1e3 * _mean_where_visible((pred - foreground).abs(), alpha)


def foreground_mse(pred: Tensor, foreground: Tensor, alpha: Tensor) -> Tensor:
    """Mean squared error of straight colour where the true alpha is above 0, x1e3; 0 for an empty frame."""
    pred, foreground = as_pair(pred, foreground, 3)
    return 1e3 * _mean_where_visible((pred - foreground).square(), alpha)


def matting_metrics(
    pred_alpha: Tensor, alpha: Tensor, pred_foreground: Tensor, foreground: Tensor
) -> dict[str, Tensor]:
    """All of the above by name, each (B, T).

    Args:
        pred_alpha, alpha: predicted and true matte, (B, 1, T, H, W), [0, 1].
        pred_foreground, foreground: predicted and true straight colour, (B, 3, T, H, W), [0, 1].

    Raises:
        DataError: shapes do not fit.
    """
    return {
        "alpha_mad": alpha_mad(pred_alpha, alpha),
        "alpha_mse": alpha_mse(pred_alpha, alpha),
        "alpha_grad": alpha_grad(pred_alpha, alpha),
        "alpha_conn": alpha_conn(pred_alpha, alpha),
        "alpha_dtssd": alpha_dtssd(pred_alpha, alpha),
        "foreground_mad": foreground_mad(pred_foreground, foreground, alpha),
        "foreground_mse": foreground_mse(pred_foreground, foreground, alpha),
    }
