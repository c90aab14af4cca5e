"""Read a written file back and measure what became of its alpha."""

from dataclasses import dataclass

import numpy as np

from wan_alpha.errors import DataError
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_frames, matte_from_rgb


@dataclass(frozen=True)
class AlphaError:
    """How far alpha in a file is from what it should be, in levels of 255, over the frames compared."""

    max_error: float
    mean_error: float
    mean_squared_error: float
    num_frames: int

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in dB, infinite for an exact copy."""
        return float("inf") if self.mean_squared_error == 0 else 10 * float(np.log10(255**2 / self.mean_squared_error))


def check_alpha(path, expected: np.ndarray, matte: bool = False) -> AlphaError:
    """Compare the alpha stored in `path` with `expected`, frame by frame.

    Args:
        path: any file that read_rgba reads, or a matte video if `matte`.
        expected: (T, H, W) alpha or (T, H, W, 4) straight RGBA, uint8. The first T frames of the file are compared, so
            one frame is a quick check and the clip a full one.
        matte: alpha is the file's grey value, not its alpha plane.

    Raises:
        DataError: the file has no alpha plane, another size, or fewer frames.
    """
    alpha = expected[..., 3] if expected.ndim == 4 else expected
    info = probe(path)
    if not matte and not info.has_alpha:
        raise DataError(f"{path}: the file has no alpha plane ({info.codec}, {info.pix_fmt})")
    if (info.height, info.width) != alpha.shape[1:]:
        raise DataError(f"{path}: {info.width}x{info.height}, expected {alpha.shape[2]}x{alpha.shape[1]}")
    largest, total, squared = 0, 0, 0
    frames = iter_frames(path, "rgb24" if matte else "rgba", 0, len(alpha))
    for wanted, frame in zip(alpha, frames, strict=True):
        stored = matte_from_rgb(frame) if matte else frame[..., 3]
        difference = np.abs(stored.astype(np.int64) - wanted)
        largest = max(largest, int(difference.max()))
        total += int(difference.sum())
        squared += int((difference**2).sum())
    return AlphaError(float(largest), total / alpha.size, squared / alpha.size, len(alpha))
