"""Image quality of what is seen: composites over named backgrounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wan_alpha.alpha.composite import BACKGROUND_COLOR_NAMES, background_color, over
from wan_alpha.metrics.clips import as_pair
from wan_alpha.metrics.region_sums import RegionSums, frame_parts
from wan_alpha.metrics.ssim import WINDOW, ssim_map

BACKGROUNDS = (*BACKGROUND_COLOR_NAMES, "grey")


@dataclass(frozen=True)
class CompositeQuality:
    """PSNR over the clip in dB, mean SSIM over frames, and mean LPIPS where a network was given."""

    psnr: float
    ssim: float
    lpips: float | None = None


class CompositeMeter:
    """Compares RGBA clips as they look over each background, added up chunk by chunk.

    A background's channels hold few different values (0, 1/2, 1), so that the channels of all composites together are
    few different planes: nine for the nine BACKGROUNDS instead of 27.

    Args:
        backgrounds: names as in `background_color`.
        distance: a perceptual distance, (N, 3, H, W) twice in [-1, 1] -> N values (LPIPS); None: not measured.

    Raises:
        ConfigError: unknown background.
    """

    def __init__(
        self, backgrounds: Sequence[str] = BACKGROUNDS, distance: Callable[[Tensor, Tensor], Tensor] | None = None
    ):
        self.colors = {name: tuple((c + 1) / 2 for c in background_color(name)) for name in backgrounds}
        self.distance = distance
        self._planes = sorted({pair for color in self.colors.values() for pair in enumerate(color)})
        self._squared, self._similarity, self._distances = RegionSums(), RegionSums(), {}

    def update(self, pred_rgb: Tensor, pred_alpha: Tensor, rgb: Tensor, alpha: Tensor, masks=None) -> None:
        """Count frames.

        Args:
            pred_rgb, rgb: predicted and true straight colour, (B, 3, T, H, W), [0, 1].
            pred_alpha, alpha: predicted and true alpha, (B, 1, T, H, W), [0, 1].
            masks: regions to be measured beside the frame, (R, B, T, H, W), or None.

        Raises:
            ConfigError: colour and alpha do not fit each other.
            DataError: prediction and truth differ in shape, or frames are too small for SSIM.
        """
        pred_rgb, rgb = as_pair(pred_rgb, rgb, 3)
        pred_alpha, alpha = as_pair(pred_alpha, alpha, 1)
        if masks is None:
            masks = alpha.new_empty(0, *alpha[:, 0].shape)
        for part in frame_parts(alpha):
            clips = (clip[:, :, part] for clip in (pred_rgb, pred_alpha, rgb, alpha))
            self._count(*clips, masks[:, :, part])

    def _count(self, pred_rgb, pred_alpha, rgb, alpha, masks):
        black = (0.0, 0.0, 0.0)
        # Over black first, which also checks that colour and alpha fit; the rest lets the background through.
        mine, other = over(pred_rgb, pred_alpha, black), over(rgb, alpha, black)
        squared, similarity = [], []
        for channel, level in self._planes:
            p = mine[:, channel] + level * (1 - pred_alpha[:, 0])
            q = other[:, channel] + level * (1 - alpha[:, 0])
            similarity.append(ssim_map(p.flatten(0, 1), q.flatten(0, 1)).unflatten(0, p.shape[:2]))
            squared.append(p.sub_(q).square_())
        rim = WINDOW // 2
        self._squared.add(squared, masks)
        self._similarity.add(similarity, masks[..., rim:-rim, rim:-rim])
        if self.distance is not None:
            self._measure_distance(pred_rgb, pred_alpha, rgb, alpha)

    def _measure_distance(self, pred_rgb, pred_alpha, rgb, alpha):
        for name, color in self.colors.items():
            pictures = (over(pred_rgb, pred_alpha, color), over(rgb, alpha, color))
            frames = (picture.transpose(1, 2).flatten(0, 1).float() * 2 - 1 for picture in pictures)
            with torch.no_grad():
                values = self.distance(*frames).flatten().view(alpha.shape[0], -1)
            self._distances.setdefault(name, []).append(values.cpu().double())

    def _of_background(self, name, values):
        """Mean over the channels of a background: values (1 + R, planes, ...) -> (1 + R, ...)."""
        planes = [self._planes.index(pair) for pair in enumerate(self.colors[name])]
        return values[:, planes].mean(dim=1)

    def per_frame(self) -> dict[str, dict[str, Tensor]]:
        """Background -> "psnr", "ssim" (1 + R, B, T), the whole frame first, and "lpips" (1, B, T) if measured."""
        squared, similarity = self._squared.means(), self._similarity.means()
        figures = {}
        for name in self.colors:
            mean_square = self._of_background(name, squared)
            figures[name] = {"psnr": -10 * mean_square.log10(), "ssim": self._of_background(name, similarity)}
            if self.distance is not None:
                figures[name]["lpips"] = torch.cat(self._distances[name], dim=-1)[None]
        return figures

    def means(self) -> dict[str, dict[str, Tensor]]:
        """The same over the clip, without T: PSNR of the mean squared error of all pixels, means over frames else."""
        squared = self._squared.totals.sum(dim=-1) / self._squared.counts.sum(dim=-1)[:, None]
        figures = {}
        for name, of_frames in self.per_frame().items():
            figures[name] = {figure: values.nanmean(dim=-1) for figure, values in of_frames.items()}
            figures[name]["psnr"] = -10 * self._of_background(name, squared).log10()
        return figures


def composite_quality(
    pred_rgb: Tensor,
    pred_alpha: Tensor,
    rgb: Tensor,
    alpha: Tensor,
    backgrounds: Sequence[str] = BACKGROUNDS,
    distance: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, CompositeQuality]:
    """Compare two RGBA clips as they look over each background; over a batch, the mean of its clips.

    Args:
        pred_rgb, pred_alpha, rgb, alpha: as in `CompositeMeter.update`.
        backgrounds, distance: as in `CompositeMeter`.

    Returns:
        Background name -> quality of the composite over it.

    Raises:
        ConfigError: unknown background, or colour and alpha do not fit each other.
        DataError: prediction and truth differ in shape, or frames are too small for SSIM.
    """
    meter = CompositeMeter(backgrounds, distance)
    meter.update(pred_rgb, pred_alpha, rgb, alpha)
    return {
        name: CompositeQuality(**{figure: values[0].mean().item() for figure, values in of_background.items()})
        for name, of_background in meter.means().items()
    }
