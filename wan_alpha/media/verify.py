"""Read a written file back and measure what became of its alpha."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wan_alpha.errors import DataError
from wan_alpha.media.pixel_depth import narrow
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_frames, matte_from_rgb


@dataclass(frozen=True)
class AlphaError:
    """How far alpha in a file is from what it should be, in levels of 255, over the frames compared.

    `clear_error` and `opaque_error` are the largest errors where alpha should be 0 and 255. `is_flat`: alpha is 255
    everywhere in the file, though it should not be.
    """

    max_error: float
    mean_error: float
    mean_squared_error: float
    num_frames: int
    clear_error: float = 0.0
    opaque_error: float = 0.0
    is_flat: bool = False

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in dB, infinite for an exact copy."""
        return float("inf") if self.mean_squared_error == 0 else 10 * float(np.log10(255**2 / self.mean_squared_error))

    def __str__(self) -> str:
        if self.max_error == 0:
            return "alpha exact"
        return f"alpha {self.psnr:.1f} dB, largest error {self.max_error:.2g}/255"


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
    frames = iter_frames(path, "rgb24" if matte else "rgba", 0, len(alpha))
    return compare_alpha(path, (matte_from_rgb(frame) if matte else frame[..., 3] for frame in frames), alpha)


def compare_alpha(path, stored: Iterable[np.ndarray], wanted: Iterable[np.ndarray]) -> AlphaError:
    """Compare two runs of alpha planes, (H, W), uint8 or uint16, holding one frame of each at a time.

    Where one of the two has 8 bits and the other 16, 8 are compared.

    Raises:
        DataError: they differ in number or size; `path` is named.
    """
    largest = clear = opaque = total = squared = 0.0
    num_frames = num_pixels = 0
    lowest_stored = lowest_wanted = 1.0
    stored, wanted = iter(stored), iter(wanted)
    for plane in wanted:
        found = next(stored, None)
        if found is None:
            raise DataError(f"{path}: only {num_frames} frames can be read back")
        if found.shape != plane.shape:
            size, expected = (f"{one.shape[1]}x{one.shape[0]}" for one in (found, plane))
            raise DataError(f"{path}: reads back as {size}, expected {expected}")
        found, plane, top = _same_depth(found, plane)
        difference = np.abs(found.astype(np.int32) - plane)
        level = 255 / top
        largest = max(largest, float(difference.max()) * level)
        clear = max(clear, float(difference.max(where=plane == 0, initial=0)) * level)
        opaque = max(opaque, float(difference.max(where=plane == top, initial=0)) * level)
        total += float(difference.sum(dtype=np.int64)) * level
        squared += float(np.square(difference, dtype=np.int64).sum()) * level**2
        lowest_stored, lowest_wanted = min(lowest_stored, found.min() / top), min(lowest_wanted, plane.min() / top)
        num_frames, num_pixels = num_frames + 1, num_pixels + plane.size
    if next(stored, None) is not None:
        raise DataError(f"{path}: reads back as more than the {num_frames} frames that were written")
    is_flat = bool(lowest_stored == 1.0 and lowest_wanted < 0.95)
    count = max(num_pixels, 1)
    return AlphaError(largest, total / count, squared / count, num_frames, clear, opaque, is_flat)


def _same_depth(found: np.ndarray, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    if found.dtype == plane.dtype:
        return found, plane, np.iinfo(plane.dtype).max
    found, plane = (one if one.dtype == np.uint8 else narrow(one) for one in (found, plane))
    return found, plane, 255
