"""Whether the frame's border stays clear: a background that was kept shows there first."""

from torch import Tensor

from wan_alpha.metrics.clips import exact
from wan_alpha.metrics.coverage import TOLERANCE


def border_width(height: int, width: int) -> int:
    """Width of the frame's border in pixels: a fiftieth of the shorter side, at least 1."""
    return max(1, min(height, width) // 50)


def border_clear(alpha: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Share of the border's pixels that are clear.

    Args:
        alpha: (B, 1, T, H, W), [0, 1].
        tolerance: largest alpha that counts as clear.

    Returns:
        (B, T), float64 on the CPU, [0, 1].
    """
    height, width = alpha.shape[-2:]
    rim = border_width(height, width)
    is_clear = (alpha[:, 0] <= tolerance).float()
    inner = is_clear[..., rim : height - rim, rim : width - rim]
    num_pixels = height * width - inner[0, 0].numel()
    return (exact(is_clear.sum(dim=(-2, -1))) - exact(inner.sum(dim=(-2, -1)))) / num_pixels
