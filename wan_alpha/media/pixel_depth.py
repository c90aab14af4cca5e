"""8 and 16 bits a channel."""

import numpy as np


def narrow(frame: np.ndarray) -> np.ndarray:
    """16 bits -> uint8, rounded: 65535 / 257 = 255 keeps the scale."""
    return ((frame.astype(np.uint32) + 128) // 257).astype(np.uint8)


def widen(frame: np.ndarray) -> np.ndarray:
    """uint8 -> uint16, exactly: 255 * 257 = 65535. `narrow` is its inverse."""
    return frame.astype(np.uint16) * np.uint16(257)


def scaling_table(bits: int, depth: int) -> np.ndarray:
    """The rounded level of `depth` bits (8 or 16) for each level of `bits` bits, as an array to look it up in."""
    top, full = (1 << bits) - 1, (1 << depth) - 1
    levels = (np.arange(top + 1, dtype=np.int64) * full + top // 2) // top
    return levels.astype(np.uint8 if depth == 8 else np.uint16)
