"""The one form in which metrics look at clips: checked, float32 or float64, on the device where they are."""

import torch
from torch import Tensor

from wan_alpha.errors import DataError


def as_pair(pred: Tensor, target: Tensor, num_channels: int | None = None) -> tuple[Tensor, Tensor]:
    """Check that two clips can be compared and bring both to one type, on the device of the target.

    float64 stays where it is given; everything else becomes float32, for not every accelerator has float64. What is
    added up over frames is added up in float64 on the CPU.

    Args:
        pred, target: (B, C, T, H, W), [0, 1].
        num_channels: wanted C; None: any.

    Raises:
        DataError: not two clips of one shape with that many channels.
    """
    wrong_channels = num_channels is not None and pred.ndim == 5 and pred.shape[1] != num_channels
    if pred.ndim != 5 or pred.shape != target.shape or wrong_channels:
        raise DataError(
            f"cannot compare clips of shape {tuple(pred.shape)} and {tuple(target.shape)}: expected "
            f"(B, {num_channels or 'C'}, T, H, W) twice"
        )
    return as_values(pred).to(target.device), as_values(target)


def as_values(clip: Tensor) -> Tensor:
    """A clip without gradient, as float64 if it is that, else as float32."""
    return clip.detach() if clip.dtype == torch.float64 else clip.detach().float()


def as_frames(clip: Tensor) -> Tensor:
    """Samples and frames in one row: (B, 1, T, H, W) -> (B*T, H, W)."""
    return clip[:, 0].flatten(0, 1)


def exact(sums: Tensor) -> Tensor:
    """Figures for adding up and keeping: float64 on the CPU."""
    # Two steps: .to("cpu", torch.float64) may convert first, on a device that has no float64.
    return sums.cpu().double()


def frame_sums(values: Tensor) -> Tensor:
    """Sums over height and width: (..., H, W) -> (...), float64 on the CPU; rows are summed where they are."""
    return exact(values.sum(dim=-1)).sum(dim=-1)
