"""Premultiplied frames made straight, without fringes, and the other way round."""

import numpy as np

from wan_alpha.media.bleed import TRUSTED, bleed_outwards

SOURCE_STATES = ("straight", "premultiplied", "auto")


def premultiply(frame: np.ndarray) -> np.ndarray:
    """Straight RGBA (..., 4) -> premultiplied RGBA of the same type: P = a*F, rounded. uint8 or uint16."""
    top = np.iinfo(frame.dtype).max
    wide = np.uint32 if top == 255 else np.uint64
    result = frame.copy()
    alpha = frame[..., 3:].astype(wide)
    result[..., :3] = (frame[..., :3] * alpha + top // 2) // top
    return result


def unpremultiply(frame: np.ndarray) -> np.ndarray:
    """Premultiplied RGBA -> straight RGBA of the same type.

    P = a*F (Porter & Duff 1984) was rounded to whole levels, so that little is known of F where a is small:

        (P - 1/2) / a <= F <= (P + 1/2) / a

    Of these colours the one nearest to the surroundings' is taken, so that thin edges get no speckle. Under zero alpha
    it is the surroundings' colour itself (bled outwards), so that no filter finds a dark fringe. Premultiplying again
    gives P back, but for colour above alpha, which no premultiplied frame has.

    Args:
        frame: (H, W, 4) uint8 or uint16, premultiplied.
    """
    top = np.iinfo(frame.dtype).max
    alpha = frame[..., 3:].astype(np.float32)
    stored = frame[..., :3].astype(np.float32)
    result = frame.copy()
    result[..., :3] = np.rint(np.minimum(stored / np.maximum(alpha, 1.0), 1.0) * top)
    faint = alpha[..., 0] < TRUSTED * top
    if faint.any():
        surroundings = bleed_outwards(stored / top, alpha / top)[faint]
        result[faint, :3] = _nearest_that_fits(np.rint(surroundings * top).astype(np.int64), frame[faint], top)
    return result


def _nearest_that_fits(wanted: np.ndarray, stored: np.ndarray, top: int) -> np.ndarray:
    """The level F nearest to the wanted one, both (N, 3), that premultiply makes the stored P, (N, 4) with alpha."""
    alpha = stored[:, 3:].astype(np.int64)
    scaled = (
        stored[:, :3].astype(np.int64) * top - top // 2
    )  # premultiply rounds: P*top <= F*a + top // 2 < (P + 1)*top
    divisor = np.maximum(alpha, 1)
    low, high = -(-scaled // divisor), (scaled + top - 1) // divisor
    return np.where(alpha > 0, np.clip(wanted, low, high), wanted).clip(0, top)
