"""Straight colour against a reference, where the true alpha is above 0, added up chunk by chunk."""

from torch import Tensor

from wan_alpha.metrics.clips import as_pair
from wan_alpha.metrics.matting import check_foreground
from wan_alpha.metrics.region_sums import RegionSums

FIGURES = ("foreground_mad", "foreground_mse")


class ForegroundMeter:
    """`foreground_mad` and `foreground_mse` over the frame and regions."""

    def __init__(self):
        self._errors = RegionSums()

    def update(self, pred: Tensor, foreground: Tensor, alpha: Tensor, masks: Tensor) -> None:
        """Count frames.

        Args:
            pred, foreground: predicted and true straight colour, (B, 3, T, H, W), [0, 1].
            alpha: true alpha, (B, 1, T, H, W), [0, 1].
            masks: regions to be measured beside the frame, (R, B, T, H, W).

        Raises:
            DataError: shapes do not fit.
        """
        pred, foreground = as_pair(pred, foreground, 3)
        check_foreground(foreground, alpha)
        error = pred - foreground
        maps = [error.abs().mean(dim=1), error.square_().mean(dim=1)]
        self._errors.add(maps, masks, weight=(alpha[:, 0] > 0).to(error.dtype))

    def per_frame(self) -> list[dict[str, Tensor]]:
        """Of the frame, then of each region: figure -> (B, T), x1e3. A frame that is empty has 0, its regions NaN."""
        means = 1e3 * self._errors.means()
        means[0] = means[0].nan_to_num(0.0)
        return [dict(zip(FIGURES, of_region, strict=True)) for of_region in means]

    def means(self) -> list[dict[str, Tensor]]:
        """The same, mean over frames: figure -> (B,)."""
        return [{name: values.nanmean(dim=-1) for name, values in of_region.items()} for of_region in self.per_frame()]
