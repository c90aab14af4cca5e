"""A clip with everything in it that formats lose: all alpha levels, hair-thin edges, semi-transparent colour."""

import numpy as np


def draw_hard_clip(num_frames=5, height=48, width=256, dtype=np.uint8):
    """(T, H, W, 4) straight RGBA: a ramp of all levels, a block that is opaque, one that is clear, moving hairs."""
    top = np.iinfo(dtype).max
    y, x = np.mgrid[:height, :width]
    clip = np.empty((num_frames, height, width, 4), np.uint16)
    for t in range(num_frames):
        alpha = np.zeros((height, width), np.uint16)
        alpha[8:16] = np.arange(width)  # every level, once a column
        alpha[16:24, : width // 2] = 255
        for hair, level in enumerate((255, 200, 128, 64, 30)):  # one pixel wide, slanted, over clear ground
            alpha[28 + (x[0] // 8 + 3 * hair + t) % 16, x[0]] = level
        clip[t] = np.stack([x * 255 // width, y * 255 // height, (x + 9 * t) % 256, alpha], axis=-1)
    if dtype == np.uint8:
        return clip.astype(np.uint8)
    wide = clip.astype(np.uint32) * 257
    wide[:, 24:28] += 77  # levels between those of 8 bits
    return np.minimum(wide, top).astype(dtype)
