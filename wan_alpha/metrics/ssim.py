"""Structural similarity."""

import torch
import torch.nn.functional as F
from torch import Tensor

from wan_alpha.errors import DataError
from wan_alpha.metrics.clips import as_pair

WINDOW = 11
SIGMA = 1.5


def _smooth(planes: Tensor) -> Tensor:
    """Gaussian mean over WINDOW x WINDOW pixels, only where the window fits: (N, 1, H, W) -> (N, 1, H-10, W-10)."""
    offsets = torch.arange(WINDOW, dtype=planes.dtype) - WINDOW // 2
    taps = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    taps = taps / taps.sum()
    return F.conv2d(F.conv2d(planes, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))


def ssim_per_frame(pred: Tensor, target: Tensor) -> Tensor:
    """SSIM of every frame, the mean over pixels and channels (Wang et al. 2004).

        (2 mp mq + c1)(2 spq + c2) / ((mp^2 + mq^2 + c1)(sp^2 + sq^2 + c2)),   c1 = 0.01^2, c2 = 0.03^2

    Means and covariances are taken in a Gaussian window of 11 pixels, sigma 1.5, wherever it fits into the frame; the
    covariances are those of the weighted window itself (scikit-image: gaussian_weights, no sample covariance).

    Args:
        pred, target: (B, C, T, H, W), [0, 1], H and W at least 11.

    Returns:
        (B, T), float64, at most 1.

    Raises:
        DataError: shapes differ or a frame is smaller than the window.
    """
    pred, target = as_pair(pred, target)
    num_samples, num_channels, num_frames, height, width = pred.shape
    if min(height, width) < WINDOW:
        raise DataError(f"SSIM needs frames of at least {WINDOW}x{WINDOW} pixels, got {width}x{height}")
    p, q = (clip.reshape(-1, 1, height, width) for clip in (pred, target))
    mean_p, mean_q = _smooth(p), _smooth(q)
    var_p = _smooth(p * p) - mean_p**2
    var_q = _smooth(q * q) - mean_q**2
    cov = _smooth(p * q) - mean_p * mean_q
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_p * mean_q + c1) * (2 * cov + c2) / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
    return similarity.mean(dim=(1, 2, 3)).view(num_samples, num_channels, num_frames).mean(dim=1)


def ssim(pred: Tensor, target: Tensor) -> float:
    """Mean of `ssim_per_frame`: same arguments and errors."""
    return ssim_per_frame(pred, target).mean().item()
