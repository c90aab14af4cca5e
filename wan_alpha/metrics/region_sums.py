"""What a meter keeps of the frames it has seen: sums of pixel maps, per region and frame."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from wan_alpha.metrics.clips import exact, frame_sums
from wan_alpha.metrics.frame_rows import FrameRows

# Frames that are worked on at a time: few, so that they stay in a CPU's cache; more, so that an accelerator is busy.
CPU_PIXELS, ACCELERATOR_PIXELS = 400_000, 16_000_000


def frame_parts(clip: Tensor) -> Iterator[slice]:
    """Cut a clip (B, C, T, H, W) along T into parts of bounded size."""
    num_samples, _, num_frames, height, width = clip.shape
    pixels = CPU_PIXELS if clip.device.type == "cpu" else ACCELERATOR_PIXELS
    step = max(1, pixels // (num_samples * height * width))
    for start in range(0, num_frames, step):
        yield slice(start, min(num_frames, start + step))


class RegionSums:
    """Adds up maps of M figures over the frame and its R regions, frame by frame.

    Attributes:
        totals: (1 + R, M, B, T); the whole frame first.
        counts: (1 + R, B, T) pixels. Both float64 on the CPU.
    """

    def __init__(self):
        self._totals, self._counts = FrameRows(), FrameRows()

    def add(self, maps: Sequence[Tensor], masks: Tensor, weight: Tensor | None = None) -> None:
        """Count frames.

        Args:
            maps: M times (B, T, H, W), any range.
            masks: the regions, (R, B, T, H, W), 0 or 1 in the maps' type; R may be 0.
            weight: where pixels count at all, (B, T, H, W), 0 or 1; None: everywhere.
        """
        batch, pixels = maps[0].shape[:2], maps[0].shape[2:].numel()
        counts, everything = frame_sums(masks), torch.full((1, *batch), float(pixels), dtype=torch.float64)
        if weight is not None:
            maps = [values * weight for values in maps]
            counts, everything = frame_sums(masks * weight), frame_sums(weight)[None]
        totals = torch.stack([frame_sums(values) for values in maps])[None]
        if len(masks):
            # Per frame, (R, pixels) times (pixels, M).
            flat = torch.stack([values.flatten(0, 1).flatten(1) for values in maps], dim=1)
            of_regions = exact(masks.flatten(1, 2).flatten(2).transpose(0, 1) @ flat.mT)
            of_regions = of_regions.permute(1, 2, 0).view(len(masks), len(maps), *batch)
            totals = torch.cat([totals, of_regions])
        self._totals.append(totals)
        self._counts.append(torch.cat([everything, counts]))

    @property
    def totals(self) -> Tensor:
        return self._totals.values

    @property
    def counts(self) -> Tensor:
        return self._counts.values

    def means(self) -> Tensor:
        """(1 + R, M, B, T): mean over the region's pixels, NaN where a frame has none of them."""
        counts = self.counts[:, None]
        return torch.where(counts > 0, self.totals / counts.clamp(min=1), torch.nan)
