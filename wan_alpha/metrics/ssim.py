"""Structural similarity."""

import math

import torch
from torch import Tensor

from wan_alpha.errors import DataError
from wan_alpha.metrics.clips import as_pair, frame_sums
from wan_alpha.metrics.windows import correlate, differing_box, reached, row_strips, with_margin

WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


def _taps() -> list[float]:
    bell = [math.exp(-0.5 * ((tap - WINDOW // 2) / SIGMA) ** 2) for tap in range(WINDOW)]
    return [value / sum(bell) for value in bell]


TAPS = _taps()


def ssim_map(pred: Tensor, target: Tensor) -> Tensor:
    """SSIM of every window that fits into its frame (Wang et al. 2004).

        (2 mp mq + c1)(2 spq + c2) / ((mp^2 + mq^2 + c1)(sp^2 + sq^2 + c2)),   c1 = 0.01^2, c2 = 0.03^2

    Means and covariances are taken in a Gaussian window of 11 pixels, sigma 1.5; the covariances are those of the
    weighted window itself (scikit-image: gaussian_weights, no sample covariance). They are computed from the sum and
    the difference of the two pictures: four filtered planes instead of five, exactly 1 where they are equal, and no
    cancellation in float32.

    Args:
        pred, target: (N, H, W), [0, 1], H and W at least 11.

    Returns:
        (N, H - 10, W - 10), at most 1; the window's centre is 5 pixels further down and right.

    Raises:
        DataError: a frame is smaller than the window.
    """
    num_planes, height, width = pred.shape
    if min(height, width) < WINDOW:
        raise DataError(f"SSIM needs frames of at least {WINDOW}x{WINDOW} pixels, got {width}x{height}")
    similarity = pred.new_ones(num_planes, height - WINDOW + 1, width - WINDOW + 1)
    # Windows without a difference have 1.
    spans = zip(differing_box(pred, target), similarity.shape[1:], strict=True)
    rows, columns = (reached(span, WINDOW - 1, 0, length) for span, length in spans)
    if rows.start < rows.stop and columns.start < columns.stop:
        box = slice(None), with_margin(rows, WINDOW), with_margin(columns, WINDOW)
        _fill(similarity[:, rows, columns], pred[box], target[box])
    return similarity


def _fill(similarity: Tensor, pred: Tensor, target: Tensor) -> None:
    for planes, rows in row_strips(pred, WINDOW):
        p, q = (picture[planes, with_margin(rows, WINDOW)] for picture in (pred, target))
        # Half of the squared mean, and half of the variance, of p + q and of p - q.
        mean_sum, var_sum = _moments(p + q)
        mean_dif, var_dif = _moments(p - q)
        above = (mean_sum - mean_dif).add_(C1).mul_((var_sum - var_dif).add_(C2))
        below = mean_sum.add_(mean_dif).add_(C1).mul_(var_sum.add_(var_dif).add_(C2))
        torch.div(above, below, out=similarity[planes, rows])


def _moments(plane: Tensor) -> tuple[Tensor, Tensor]:
    mean, square = (correlate(correlate(values, TAPS, -2), TAPS, -1) for values in (plane, plane.square()))
    mean.square_().mul_(0.5)
    return mean, square.mul_(0.5).sub_(mean)


def ssim_per_frame(pred: Tensor, target: Tensor) -> Tensor:
    """SSIM of every frame, the mean of `ssim_map` over pixels and channels.

    Args:
        pred, target: (B, C, T, H, W), [0, 1], H and W at least 11.

    Returns:
        (B, T), float64, at most 1.

    Raises:
        DataError: shapes differ or a frame is smaller than the window.
    """
    pred, target = as_pair(pred, target)
    similarity = ssim_map(*(clip.flatten(0, 2) for clip in (pred, target)))
    means = frame_sums(similarity) / similarity[0].numel()
    return means.view(pred.shape[:3]).mean(dim=1)


def ssim(pred: Tensor, target: Tensor) -> float:
    """Mean of `ssim_per_frame`: same arguments and errors."""
    return ssim_per_frame(pred, target).mean().item()
