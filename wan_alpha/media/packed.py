"""Colour and matte side by side or stacked in the frames of one opaque video."""

import numpy as np

from wan_alpha.errors import ConfigError, DataError

# Where the matte lies, seen from the colour.
PACKINGS = ("none", "alpha_right", "alpha_left", "alpha_below", "alpha_above")


def unpacked_size(width: int, height: int, packing: str) -> tuple[int, int]:
    """(width, height) of the picture in a packed frame.

    Raises:
        ConfigError: unknown packing, or "none".
        DataError: the side that holds both is odd.
    """
    if packing not in PACKINGS[1:]:
        raise ConfigError(f"packing = {packing!r} is not one of {', '.join(PACKINGS)}")
    side_by_side = packing in ("alpha_right", "alpha_left")
    if (width if side_by_side else height) % 2:
        side, value = ("width", width) if side_by_side else ("height", height)
        raise DataError(f"{width}x{height} cannot be halved: with packing {packing} the {side} is even, not {value}")
    return (width // 2, height) if side_by_side else (width, height // 2)


def unpack(frame: np.ndarray, packing: str) -> np.ndarray:
    """Cut a packed frame in two and join the halves: (H, 2W, 4) or (2H, W, 4) -> (H, W, 4) straight RGBA.

    Args:
        frame: R, G, B and grey, as the reader's "rgb+gray" gives them. The grey of a video is its luma: R, G and B of
            the matte also have the chroma that halved planes carry over the seam.

    Raises:
        ConfigError: unknown packing.
        DataError: the frame cannot be halved.
    """
    colour, matte = split(frame, packing)
    return join(colour[..., :3], matte[..., 3])


def split(frame: np.ndarray, packing: str) -> tuple[np.ndarray, np.ndarray]:
    """The colour half and the matte half of a packed frame, both (H, W, C). Errors as unpack."""
    width, height = unpacked_size(frame.shape[1], frame.shape[0], packing)
    if packing in ("alpha_right", "alpha_left"):
        halves = frame[:, :width], frame[:, width:]
    else:
        halves = frame[:height], frame[height:]
    return halves if packing in ("alpha_right", "alpha_below") else halves[::-1]


def join(colour: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """(H, W, 3) and (H, W) -> (H, W, 4) of the same type."""
    frame = np.empty((*matte.shape, 4), colour.dtype)
    frame[..., :3] = colour
    frame[..., 3] = matte
    return frame
