"""How much of a generated clip is clear, semi-transparent and opaque."""

from dataclasses import dataclass

from torch import Tensor

# What a decoder and a lossy codec leave on a flat matte.
TOLERANCE = 4 / 255


@dataclass(frozen=True)
class Coverage:
    """Shares of all pixels, [0, 1]; they add up to 1."""

    clear: float
    semi_transparent: float
    opaque: float


def coverage(alpha: Tensor, tolerance: float = TOLERANCE) -> Coverage:
    """Count pixels by their alpha.

    Args:
        alpha: any shape, [0, 1].
        tolerance: how far from 0 or 1 alpha may be and still count as clear or opaque, below 0.5.
    """
    assert tolerance < 0.5, "beyond 0.5 a pixel would be clear and opaque at once"
    values = alpha.detach().cpu().float()
    clear = (values <= tolerance).double().mean().item()
    opaque = (values >= 1 - tolerance).double().mean().item()
    return Coverage(clear=clear, semi_transparent=max(0.0, 1 - clear - opaque), opaque=opaque)
