"""Colour and matte side by side or stacked in the frames of one opaque video."""

import numpy as np

# Where the matte lies, seen from the colour.
PACKINGS = ("none", "alpha_right", "alpha_left", "alpha_below", "alpha_above")


def unpack(frame: np.ndarray, packing: str) -> np.ndarray:
    """Cut a packed frame in two and join the halves: (H, 2W, 3) or (2H, W, 3) -> (H, W, 4) straight RGBA.

    Raises:
        ConfigError: unknown packing.
        DataError: the frame cannot be halved.
    """
    raise NotImplementedError
