"""How well an RGBA VAE gives back a clip: colour over grey and alpha, chunk by chunk."""

import math
from dataclasses import dataclass

from torch import Tensor

from wan_alpha.alpha.composite import over
from wan_alpha.errors import DataError
from wan_alpha.metrics.clips import as_pair
from wan_alpha.metrics.ssim import ssim_per_frame

GREY = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class StreamQuality:
    """MAE in levels of 255, PSNR in dB (infinity for equal clips), mean SSIM over frames."""

    mae: float
    psnr: float
    ssim: float


@dataclass(frozen=True)
class ReconstructionQuality:
    """Of the colour, both clips over grey with the true alpha, so that hidden colour does not count, and of alpha."""

    rgb: StreamQuality
    alpha: StreamQuality


class _StreamMeter:
    def __init__(self):
        self.absolute = self.squared = self.similarity = 0.0
        self.num_values = self.num_frames = 0

    def update(self, pred, target):
        pred, target = as_pair(pred, target)
        error = pred - target
        self.absolute += error.abs().sum().item()
        self.squared += error.square().sum().item()
        self.num_values += error.numel()
        similarity = ssim_per_frame(pred, target)
        self.similarity += similarity.sum().item()
        self.num_frames += similarity.numel()

    def quality(self):
        mean_square = self.squared / self.num_values
        psnr = math.inf if mean_square == 0 else -10 * math.log10(mean_square)
        return StreamQuality(255 * self.absolute / self.num_values, psnr, self.similarity / self.num_frames)


class ReconstructionMeter:
    """Adds up a clip's quality, or several clips', so that no more than a chunk of frames needs to be in memory."""

    def __init__(self):
        self._rgb, self._alpha = _StreamMeter(), _StreamMeter()

    def update(self, pred_rgb: Tensor, pred_alpha: Tensor, rgb: Tensor, alpha: Tensor) -> None:
        """Count frames.

        Args:
            pred_rgb, rgb: reconstructed and true straight colour, (B, 3, T, H, W), [0, 1].
            pred_alpha, alpha: reconstructed and true alpha, (B, 1, T, H, W), [0, 1].

        Raises:
            ConfigError: colour and alpha do not fit each other.
            DataError: reconstruction and truth differ in shape, or frames are below 11x11 pixels.
        """
        self._rgb.update(over(pred_rgb, alpha, GREY), over(rgb, alpha, GREY))
        self._alpha.update(pred_alpha, alpha)

    def quality(self) -> ReconstructionQuality:
        """The figures over everything counted so far.

        Raises:
            DataError: nothing was counted.
        """
        if not self._rgb.num_frames:
            raise DataError("no frames were compared")
        return ReconstructionQuality(self._rgb.quality(), self._alpha.quality())
