"""Image quality of what is seen: composites over named backgrounds."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from wan_alpha.alpha.composite import background_color, over
from wan_alpha.metrics.psnr import psnr
from wan_alpha.metrics.ssim import ssim

BACKGROUNDS = ("black", "white", "magenta", "grey")


@dataclass(frozen=True)
class CompositeQuality:
    """PSNR over the clip in dB and mean SSIM over frames."""

    psnr: float
    ssim: float


def composite_quality(
    pred_rgb: Tensor, pred_alpha: Tensor, rgb: Tensor, alpha: Tensor, backgrounds: Sequence[str] = BACKGROUNDS
) -> dict[str, CompositeQuality]:
    """Compare two RGBA clips as they look over each background.

    Args:
        pred_rgb, rgb: predicted and true straight colour, (B, 3, T, H, W), [0, 1].
        pred_alpha, alpha: predicted and true alpha, (B, 1, T, H, W), [0, 1].
        backgrounds: names as in `background_color`.

    Returns:
        Background name -> quality of the composite over it.

    Raises:
        ConfigError: unknown background, or colour and alpha do not fit each other.
        DataError: prediction and truth differ in shape, or frames are too small for SSIM.
    """
    qualities = {}
    for name in backgrounds:
        background = tuple((channel + 1) / 2 for channel in background_color(name))
        pred, target = over(pred_rgb, pred_alpha, background), over(rgb, alpha, background)
        qualities[name] = CompositeQuality(psnr(pred, target), ssim(pred, target))
    return qualities
