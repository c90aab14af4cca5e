"""Figures of a generated clip, which has no reference: how it is transparent, and whether it is at all."""

from typing import Literal

import torch
from torch import Tensor

from wan_alpha.errors import DataError
from wan_alpha.metrics.border import border_clear
from wan_alpha.metrics.clips import as_values, exact
from wan_alpha.metrics.colour_fringe import colour_fringe, fringe_sums
from wan_alpha.metrics.coverage import TOLERANCE
from wan_alpha.metrics.edge_width import edge_slopes
from wan_alpha.metrics.flicker import flicker
from wan_alpha.metrics.frame_rows import FrameRows
from wan_alpha.metrics.region_sums import frame_parts

Collapse = Literal["all opaque", "all clear", "background kept"]
# Shares of pixels.
ALL_OPAQUE, ALL_CLEAR = 0.99, 0.999
BORDER_STAYS, BACKGROUND_KEPT = 0.98, 0.1
FIGURES = ("clear", "semi_transparent", "opaque", "border_clear", "flicker", "edge_width")


def collapse(clear: float, opaque: float, border: float) -> Collapse | None:
    """The name of what went wrong with a clip's transparency, None where nothing did.

    Args:
        clear, opaque: shares of the clip's pixels; border: share of its border's pixels that are clear.
    """
    if opaque >= ALL_OPAQUE:
        return "all opaque"
    if clear >= ALL_CLEAR:
        return "all clear"
    return "background kept" if border <= BACKGROUND_KEPT else None


class TransparencyMeter:
    """Every figure that needs no reference, of one clip or of a batch of clips of one size.

    - clear, semi_transparent, opaque: shares of pixels.
    - border_clear: share of the border's pixels that are clear.
    - flicker: mean departure of alpha from its neighbouring frames where nothing moves, x1e3 (see `flicker`).
    - edge_width: pixels from clear to opaque (see `edge_width`).
    - colour_fringe, fringe_background: background left in the edge's colour, and which (see `colour_fringe`).
    - border_stays_clear: in every frame, 98% of the border are clear.
    - collapse: "all opaque", "all clear", "background kept" or None.

    Args:
        tolerance: how far from 0 or 1 alpha may be and still count as clear or opaque.
    """

    def __init__(self, tolerance: float = TOLERANCE):
        self.tolerance = tolerance
        self._frames = {name: FrameRows() for name in ("clear", "opaque", "border_clear", "slope", "crossings")}
        self._departure, self._num_still = FrameRows(), FrameRows()
        self._fringe = 0
        self._last = None

    def update(self, rgb: Tensor, alpha: Tensor) -> None:
        """Count the frames that follow those counted before.

        Args:
            rgb: straight colour, (B, 3, T, H, W), [0, 1]; alpha: (B, 1, T, H, W), [0, 1].

        Raises:
            DataError: shapes do not fit, or a side is below 2 pixels.
        """
        fits = rgb.ndim == alpha.ndim == 5 and rgb.shape[1] == 3 and alpha.shape[1] == 1
        if not fits or rgb.shape[0] != alpha.shape[0] or rgb.shape[2:] != alpha.shape[2:] or min(alpha.shape[3:]) < 2:
            raise DataError(
                f"colour {tuple(rgb.shape)} and alpha {tuple(alpha.shape)} are no clip: expected (B, 3, T, H, W) and "
                "(B, 1, T, H, W) of at least 2x2 pixels"
            )
        rgb, alpha = as_values(rgb), as_values(alpha)
        for part in frame_parts(alpha):
            self._count(rgb[:, :, part], alpha[:, :, part])

    def _count(self, rgb, alpha):
        pixels = alpha.shape[-2:].numel()
        slope, crossings = edge_slopes(alpha)
        of_part = {
            "clear": exact((alpha[:, 0] <= self.tolerance).sum(dim=(-2, -1))) / pixels,
            "opaque": exact((alpha[:, 0] >= 1 - self.tolerance).sum(dim=(-2, -1))) / pixels,
            "border_clear": border_clear(alpha, self.tolerance),
            "slope": slope,
            "crossings": crossings,
        }
        for name, values in of_part.items():
            self._frames[name].append(values)
        self._fringe = self._fringe + fringe_sums(rgb, alpha, self.tolerance).sum(dim=-1)
        before = (rgb[:, :, :0], alpha[:, :, :0]) if self._last is None else self._last
        rgb, alpha = (torch.cat(pair, dim=2) for pair in zip(before, (rgb, alpha), strict=True))
        if alpha.shape[2] > 2:
            departure, num_still = flicker(rgb, alpha, self.tolerance)
            self._departure.append(departure)
            self._num_still.append(num_still)
        self._last = rgb[:, :, -2:].clone(), alpha[:, :, -2:].clone()

    def per_frame(self) -> dict[str, Tensor]:
        """FIGURES, each (B, T) float64.

        NaN: the flicker of the first and last frame, or where nothing stands still; the edge width without an edge.
        """
        found = {name: rows.values for name, rows in self._frames.items()}
        shaky = torch.full_like(found["clear"], torch.nan)
        if len(self._departure):
            shaky[:, 1:-1] = 1e3 * self._departure.values / self._num_still.values
        return {
            "clear": found["clear"],
            "semi_transparent": (1 - found["clear"] - found["opaque"]).clamp(min=0),
            "opaque": found["opaque"],
            "border_clear": found["border_clear"],
            "flicker": shaky,
            "edge_width": found["crossings"] / found["slope"],
        }

    def means(self) -> list[dict]:
        """Of every clip, the figures that the class names: means over frames, fringe and flicker over all pixels.

        Raises:
            DataError: no frames were counted.
        """
        if not len(self._frames["clear"]):
            raise DataError("no frames were counted")
        of_frames = self.per_frame()
        clips = []
        for sample in range(len(of_frames["clear"])):
            clip = {name: values[sample].nanmean().item() for name, values in of_frames.items()}
            if len(self._departure):
                departure, num_still = (rows.values[sample].sum() for rows in (self._departure, self._num_still))
                clip["flicker"] = (1e3 * departure / num_still).item()
            clip["colour_fringe"], clip["fringe_background"] = colour_fringe(self._fringe[..., sample])
            clip["border_stays_clear"] = bool((of_frames["border_clear"][sample] >= BORDER_STAYS).all())
            clip["collapse"] = collapse(clip["clear"], clip["opaque"], clip["border_clear"])
            clips.append(clip)
        return clips
