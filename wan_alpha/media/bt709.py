"""The one colour space of every video that is written: BT.709, limited range; how to get there, and what says so.

Said in the file and used in the conversion: players otherwise guess the matrix from the frame size.
"""

import numpy as np

TAGS = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
# Of frames that are coded already: without it ffmpeg takes them for another space and converts them.
AS_TAGGED = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
FROM_RGB = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int"
# The same for RGBA. ffmpeg's conversion moves one alpha level in five by one; alpha therefore goes around it.
FROM_RGBA = f"split[all][a];[a]alphaextract[alpha];[all]{FROM_RGB},format=yuva420p[coded];[coded][alpha]alphamerge"
H264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", *TAGS]

# BT.709, part 3: Y = 0.2126 R + 0.7152 G + 0.0722 B; Cb = (B - Y) / 1.8556; Cr = (R - Y) / 1.5748.
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_BLUE, _RED = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
_MATRIX = np.stack([_LUMA, (_BLUE - _LUMA) / 1.8556, (_RED - _LUMA) / 1.5748])
_OFFSETS = (64.5, 512.5, 512.5)  # the halves turn truncation into rounding


def rgba_to_yuva444p10(frames: np.ndarray) -> np.ndarray:
    """Straight RGBA as planar YUV of limited range and alpha of full range, 10 bits each: what ProRes is fed.

        Y = 64 + 876 Y',  Cb = 512 + 896 Cb',  Cr = 512 + 896 Cr'        (BT.709, part 3, with n = 10)

    Alpha is exact: its 256 levels come back from the 10-bit ones by rounding and by dropping two bits alike.

    Args:
        frames: (T, H, W, 4) uint8 or uint16.

    Returns:
        (T, 4, H, W) uint16: Y in 64..940, Cb and Cr in 64..960, alpha in 0..1023.
    """
    top = np.iinfo(frames.dtype).max
    weights = (_MATRIX * np.array([[876], [896], [896]]) / top).astype(np.float32)
    planes = np.empty((len(frames), 4, *frames.shape[1:3]), np.uint16)
    for frame, coded in zip(frames, planes, strict=True):
        red, green, blue = (frame[..., channel].astype(np.float32) for channel in range(3))
        for (from_red, from_green, from_blue), offset, plane in zip(weights, _OFFSETS, coded[:3], strict=True):
            value = red * from_red
            value += green * from_green
            value += blue * from_blue
            value += offset
            plane[...] = value
        coded[3] = (frame[..., 3].astype(np.uint32) * 1023 + top // 2) // top
    return planes


def pad_to_even(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, C) with the last row and column repeated where their number is odd: 4:2:0 video has no odd sizes."""
    odd_rows, odd_columns = frames.shape[1] % 2, frames.shape[2] % 2
    if not (odd_rows or odd_columns):
        return frames
    return np.pad(frames, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
