"""The one form in which metrics look at clips: checked, float64, on the CPU."""

from torch import Tensor

from wan_alpha.errors import DataError


def as_pair(pred: Tensor, target: Tensor, num_channels: int | None = None) -> tuple[Tensor, Tensor]:
    """Check that two clips can be compared and bring both to float64 on the CPU (not every accelerator has float64).

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
    # Two steps: .to("cpu", torch.float64) may convert first, on a device that has no float64.
    return pred.detach().cpu().double(), target.detach().cpu().double()
