"""Video matting metrics, scaled as in the RobustVideoMatting evaluation (Lin et al. 2022).

Clips in, one number per frame out: alpha (B, 1, T, H, W) and foreground (B, 3, T, H, W), all [0, 1] -> (B, T) float64
on the CPU; the work is done where the clips are. Smaller is better. Every function raises DataError where shapes do
not fit. For long clips, and for regions of a frame, see `meters`.
"""

import torch.nn.functional as F
from torch import Tensor

from wan_alpha.errors import DataError
from wan_alpha.metrics.clips import as_frames, as_pair, frame_sums
from wan_alpha.metrics.connectivity import connectivity_error
from wan_alpha.metrics.gradient import gradient_error


def alpha_mad(pred: Tensor, alpha: Tensor) -> Tensor:
    """Mean absolute difference, x1e3."""
    pred, alpha = as_pair(pred, alpha, 1)
    return 1e3 * _pixel_mean((pred - alpha).abs_())


def alpha_mse(pred: Tensor, alpha: Tensor) -> Tensor:
    """Mean squared error, x1e3."""
    pred, alpha = as_pair(pred, alpha, 1)
    return 1e3 * _pixel_mean((pred - alpha).square_())


def alpha_sad(pred: Tensor, alpha: Tensor) -> Tensor:
    """Sum of absolute differences, /1e3: it grows with the frame."""
    pred, alpha = as_pair(pred, alpha, 1)
    return frame_sums((pred - alpha).abs_())[:, 0] / 1e3


def alpha_grad(pred: Tensor, alpha: Tensor) -> Tensor:
    """Sum of `gradient_error`, /1e3."""
    return _frame_error(gradient_error, pred, alpha)


def alpha_conn(pred: Tensor, alpha: Tensor) -> Tensor:
    """Sum of `connectivity_error`, /1e3."""
    return _frame_error(connectivity_error, pred, alpha)


def alpha_dtssd(pred: Tensor, alpha: Tensor) -> Tensor:
    """Root mean square of the error's change from frame to frame (Erofeev et al. 2015), x1e2; the first frame has 0."""
    pred, alpha = as_pair(pred, alpha, 1)
    return F.pad(1e2 * _pixel_mean((pred - alpha).diff(dim=2).square_()).sqrt(), (1, 0))


def alpha_messddt(pred: Tensor, alpha: Tensor) -> Tensor:
    """Mean absolute change of the squared error from frame to frame, x1e3; the first frame has 0.

    Erofeev et al. 2015 compare along the reference's motion; here, as in dtSSD, a pixel is compared with itself, so
    that no estimate of motion enters the figure.
    """
    pred, alpha = as_pair(pred, alpha, 1)
    return F.pad(1e3 * _pixel_mean((pred - alpha).square_().diff(dim=2).abs_()), (1, 0))


def foreground_mad(pred: Tensor, foreground: Tensor, alpha: Tensor) -> Tensor:
    """Mean absolute difference of straight colour where the true alpha is above 0, x1e3; 0 for an empty frame."""
    pred, foreground = as_pair(pred, foreground, 3)
    return 1e3 * _mean_where_visible((pred - foreground).abs_(), alpha)


def foreground_mse(pred: Tensor, foreground: Tensor, alpha: Tensor) -> Tensor:
    """Mean squared error of straight colour where the true alpha is above 0, x1e3; 0 for an empty frame."""
    pred, foreground = as_pair(pred, foreground, 3)
    return 1e3 * _mean_where_visible((pred - foreground).square_(), alpha)


def _pixel_mean(error: Tensor) -> Tensor:
    return frame_sums(error)[:, 0] / error.shape[-2:].numel()


def _frame_error(pixel_error, pred: Tensor, alpha: Tensor) -> Tensor:
    pred, alpha = as_pair(pred, alpha, 1)
    error = pixel_error(as_frames(pred), as_frames(alpha))
    return frame_sums(error).view(pred.shape[0], pred.shape[2]) / 1e3


def check_foreground(foreground: Tensor, alpha: Tensor) -> None:
    """Raise DataError where a foreground (B, 3, T, H, W) and an alpha (B, 1, T, H, W) do not belong together."""
    if alpha.shape != (foreground.shape[0], 1, *foreground.shape[2:]):
        raise DataError(
            f"alpha of shape {tuple(alpha.shape)} does not fit a foreground of shape {tuple(foreground.shape)}"
        )


def _mean_where_visible(error: Tensor, alpha: Tensor) -> Tensor:
    check_foreground(error, alpha)
    visible = (alpha.to(error.device) > 0).to(error.dtype)
    count = error.shape[1] * frame_sums(visible)[:, 0]
    return frame_sums(error * visible).sum(dim=1) / count.clamp(min=1)


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
    of_alpha = (alpha_mad, alpha_mse, alpha_sad, alpha_grad, alpha_conn, alpha_dtssd, alpha_messddt)
    of_foreground = (foreground_mad, foreground_mse)
    return {metric.__name__: metric(pred_alpha, alpha) for metric in of_alpha} | {
        metric.__name__: metric(pred_foreground, foreground, alpha) for metric in of_foreground
    }
