"""Alpha against a reference, added up chunk by chunk: every matting metric, PSNR and SSIM, over regions too."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wan_alpha.metrics.clips import as_frames, as_pair
from wan_alpha.metrics.connectivity import connectivity_error
from wan_alpha.metrics.gradient import gradient_error
from wan_alpha.metrics.region_sums import RegionSums, frame_parts
from wan_alpha.metrics.regions import FRAME, REGIONS, region_masks
from wan_alpha.metrics.ssim import WINDOW, ssim_map

FiguresOfRegions = dict[str, dict[str, Tensor]]
"""Region ("frame" and REGIONS) -> figure -> values."""


@dataclass(frozen=True)
class PixelFigure:
    """How a frame's figure follows from the sum of a map: scale * its mean, its sum, or the root of its mean."""

    map_index: int
    of: Literal["mean", "sum", "root"]
    scale: float


ABSOLUTE, SQUARED, GRADIENT, CONNECTIVITY, CHANGE, SQUARED_CHANGE = range(6)
FIGURES = {
    "alpha_mad": PixelFigure(ABSOLUTE, "mean", 1e3),
    "alpha_mse": PixelFigure(SQUARED, "mean", 1e3),
    "alpha_sad": PixelFigure(ABSOLUTE, "sum", 1e-3),
    "alpha_grad": PixelFigure(GRADIENT, "sum", 1e-3),
    "alpha_conn": PixelFigure(CONNECTIVITY, "sum", 1e-3),
    "alpha_dtssd": PixelFigure(CHANGE, "root", 1e2),
    "alpha_messddt": PixelFigure(SQUARED_CHANGE, "mean", 1e3),
}


class AlphaMeter:
    """The figures of one clip, or of a batch of clips of one size; see `matting` for what they mean.

    A region's figure counts its pixels only: sums of regions that make up the frame add up to the frame's sum. Where a
    frame has none of a region's pixels, the region's figure is NaN, and the frame does not count in its mean.

    Args:
        regions: measure the REGIONS too, not only the whole frame.
        radius: reach of the edge band in pixels; None: `regions.edge_radius`.
    """

    def __init__(self, regions: bool = True, radius: int | None = None):
        self.regions = REGIONS if regions else ()
        self.radius = radius
        self._errors, self._similarity = RegionSums(), RegionSums()
        self._last_error = None

    def masks(self, alpha: Tensor) -> Tensor:
        """The regions of a reference (B, 1, T, H, W), as `RegionSums` takes them: (R, B, T, H, W) in alpha's type."""
        num_samples, _, num_frames, height, width = alpha.shape
        if not self.regions:
            return alpha.new_empty(0, num_samples, num_frames, height, width)
        masks = region_masks(as_frames(alpha), self.radius)[:, 1:]
        return masks.to(alpha.dtype).transpose(0, 1).reshape(-1, num_samples, num_frames, height, width)

    def update(self, pred: Tensor, alpha: Tensor, masks: Tensor | None = None) -> None:
        """Count the frames that follow those counted before.

        Args:
            pred, alpha: (B, 1, T, H, W), [0, 1], H and W at least 11.
            masks: what `masks` says of alpha, where it is known already.

        Raises:
            DataError: shapes do not fit, or frames are too small for SSIM.
        """
        pred, alpha = as_pair(pred, alpha, 1)
        for part in frame_parts(alpha):
            of_part = self.masks(alpha[:, :, part]) if masks is None else masks[:, :, part]
            self._count(pred[:, :, part], alpha[:, :, part], of_part)

    def _count(self, pred, alpha, masks):
        batch = alpha[:, 0].shape
        error = (pred - alpha)[:, 0]
        squared = error.square()
        last = error[:, :1] if self._last_error is None else self._last_error
        change, squared_change = _change(error, last), _change(squared, last.square())
        self._last_error = error[:, -1:].clone()
        mattes = as_frames(pred), as_frames(alpha)
        gradient, connectivity = (of(*mattes).view(batch) for of in (gradient_error, connectivity_error))
        maps = [error.abs_(), squared, gradient, connectivity, change.square_(), squared_change.abs_()]
        self._errors.add(maps, masks)
        rim = WINDOW // 2
        inner = masks[..., rim:-rim, rim:-rim]
        similarity = ssim_map(*mattes)
        self._similarity.add([similarity.view(*batch[:2], *similarity.shape[1:])], inner)

    def per_frame(self) -> FiguresOfRegions:
        """Every frame's figures, each (B, T) float64."""
        means, sums, similarity = self._errors.means(), self._errors.totals, self._similarity.means()
        figures = {}
        for index, region in enumerate((FRAME, *self.regions)):
            is_there = self._errors.counts[index] > 0
            figures[region] = {
                name: _frame_figure(figure, means[index], sums[index], is_there) for name, figure in FIGURES.items()
            }
            figures[region]["alpha_psnr"] = -10 * means[index, SQUARED].log10()
            figures[region]["alpha_ssim"] = similarity[index, 0]
        return figures

    def means(self) -> FiguresOfRegions:
        """The clips' figures, each (B,) float64: means over frames; PSNR of the mean squared error of all pixels."""
        figures = {
            region: {name: values.nanmean(dim=-1) for name, values in of_region.items()}
            for region, of_region in self.per_frame().items()
        }
        squared = self._errors.totals[:, SQUARED].sum(dim=-1) / self._errors.counts.sum(dim=-1)
        for of_region, mean_square in zip(figures.values(), squared, strict=True):
            of_region["alpha_psnr"] = -10 * mean_square.log10()
        return figures


def _change(values, last):
    """From frame to frame: values (B, T, H, W), the frame before them (B, 1, H, W)."""
    change = torch.empty_like(values)
    torch.sub(values[:, :1], last, out=change[:, :1])
    torch.sub(values[:, 1:], values[:, :-1], out=change[:, 1:])
    return change


def _frame_figure(figure, means, sums, is_there):
    if figure.of == "sum":
        return torch.where(is_there, figure.scale * sums[figure.map_index], torch.nan)
    mean = means[figure.map_index]
    return figure.scale * (mean.sqrt() if figure.of == "root" else mean)
