"""An RGBA clip against its reference: alpha, foreground and composites in one pass over the frames."""

from collections.abc import Callable

from torch import Tensor

from wan_alpha.metrics.alpha_meter import AlphaMeter
from wan_alpha.metrics.clips import as_pair
from wan_alpha.metrics.composite import BACKGROUNDS, CompositeMeter
from wan_alpha.metrics.foreground_meter import ForegroundMeter
from wan_alpha.metrics.region_sums import frame_parts
from wan_alpha.metrics.regions import FRAME

# AlphaMeter's figures of alpha as a picture, and what they are called in a table of alpha.
OF_PICTURES = {"alpha_psnr": "psnr", "alpha_ssim": "ssim"}


class ReferenceMeter:
    """Every figure that needs a reference. What it keeps does not grow with the frames' size: a few numbers a frame.

    Args:
        regions, radius: as in `AlphaMeter`.
        backgrounds, distance: as in `CompositeMeter`.
    """

    def __init__(
        self,
        regions: bool = True,
        radius: int | None = None,
        backgrounds=BACKGROUNDS,
        distance: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self._alpha = AlphaMeter(regions, radius)
        self._foreground, self._composite = ForegroundMeter(), CompositeMeter(backgrounds, distance)
        self.regions = (FRAME, *self._alpha.regions)

    def update(self, pred_rgb: Tensor, pred_alpha: Tensor, rgb: Tensor, alpha: Tensor) -> None:
        """Count the frames that follow those counted before.

        Args:
            pred_rgb, rgb: predicted and true straight colour, (B, 3, T, H, W), [0, 1].
            pred_alpha, alpha: predicted and true alpha, (B, 1, T, H, W), [0, 1].

        Raises:
            ConfigError: colour and alpha do not fit each other.
            DataError: prediction and truth differ in shape, or frames are below 11x11 pixels.
        """
        pred_rgb, rgb = as_pair(pred_rgb, rgb, 3)
        pred_alpha, alpha = as_pair(pred_alpha, alpha, 1)
        for part in frame_parts(alpha):
            clips = pred_rgb[:, :, part], pred_alpha[:, :, part], rgb[:, :, part], alpha[:, :, part]
            masks = self._alpha.masks(clips[3])
            self._alpha.update(clips[1], clips[3], masks)
            self._foreground.update(clips[0], clips[2], clips[3], masks)
            self._composite.update(*clips, masks)

    def _by_region(self, of_alpha, of_foreground, of_composite):
        return {
            region: {
                "mean": {name: value for name, value in of_alpha[region].items() if name not in OF_PICTURES}
                | of_foreground[index],
                "composite": {
                    name: {figure: values[index] for figure, values in figures.items() if index < len(values)}
                    for name, figures in of_composite.items()
                },
                "alpha": {short: of_alpha[region][name] for name, short in OF_PICTURES.items()},
            }
            for index, region in enumerate(self.regions)
        }

    def per_frame(self) -> dict[str, dict]:
        """Region -> {"mean": {figure: (B, T)}, "composite": {background: {...}}, "alpha": {"psnr", "ssim"}}."""
        return self._by_region(self._alpha.per_frame(), self._foreground.per_frame(), self._composite.per_frame())

    def means(self) -> dict[str, dict]:
        """The same over the clip, each (B,)."""
        return self._by_region(self._alpha.means(), self._foreground.means(), self._composite.means())
