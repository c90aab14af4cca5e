"""What ffmpeg is asked to send for a frame, and how that becomes a frame whose alpha is exact.

ffmpeg's conversions cut alpha of more than 8 bits down instead of rounding it, and widen it without reaching full scale
(4095 of 4095 becomes 65520 of 65535). Such frames are therefore taken as wide as they are, and scaled here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from wan_alpha.media.pixel_depth import narrow, scaling_table, widen
from wan_alpha.media.probe import MediaInfo

CHANNELS = {"rgba": 4, "rgb24": 3, "gray": 1, "rgb+gray": 4}

# YUV is made RGB in planes: the same levels, several times faster than ffmpeg's exact conversion to packed pixels.
_PLANES = {"rgba": "gbrap", "rgb24": "gbrp", "rgb+gray": "gbrap"}
_GBR = (1, 2, 0)

_SCALE = "scale={0.width}:{0.height}:flags=bicubic+accurate_rnd+full_chroma_int"
# The luma of a matte in limited range (16..235) is its grey value; there is no need to make RGB of it first.
_EXPANDED_LUMA = "extractplanes=y,lut=y=clip((val-16)*255/219+0.5\\,0\\,255)"
# The luma as a plane beside R, G and B: of RGB it could not be made again, where that was clipped.
_WITH_LUMA = "split[all][y];[y]{luma},format=gray[grey];[all]{scale},format=gbrap[rgb];[rgb][grey]alphamerge"


@dataclass(frozen=True)
class RawFrames:
    """How frames come through the pipe.

    Attributes:
        pix_fmt: ffmpeg's name of what is sent; filters: what makes it.
        shape, dtype: of one frame as sent.
        finish: makes of it the frame that was asked for.
        places: of each part that is sent, its place in the first dimension of shape; () for all in order.
    """

    pix_fmt: str
    filters: str
    shape: tuple[int, ...]
    dtype: np.dtype
    finish: Callable[[np.ndarray], np.ndarray]
    places: tuple[int, ...] = ()


def raw_frames(info: MediaInfo, layout: str, depth: int) -> RawFrames:
    """Choose what to ask ffmpeg for.

    Args:
        layout: "rgba", "rgb24", "gray" for a matte (the mean of R, G and B, or the luma), or "rgb+gray" for both.
        depth: 8 (uint8) or 16 (uint16, full scale 65535).
    """
    size, scale = (info.height, info.width), _SCALE.format(info)
    if layout in ("gray", "rgb+gray"):
        luma = "extractplanes=y" if _is_full_range(info) else _EXPANDED_LUMA
        if info.bit_depth == 8 and info.pix_fmt.startswith(("yuv4", "yuvj4", "yuva4")):
            if layout == "gray":
                return RawFrames("gray", f"{luma},{scale}", size, np.dtype("u1"), _widen(depth))
            return _planes(info, layout, _WITH_LUMA.format(luma=luma, scale=scale), _widen(depth))
        colour = raw_frames(info, "rgb24", depth)
        made = matte_from_rgb if layout == "gray" else with_gray
        return replace(colour, finish=lambda frame: made(colour.finish(frame)))
    channels = CHANNELS[layout]
    if info.bit_depth == 8 and info.pix_fmt.startswith("yuv"):
        return _planes(info, layout, scale, _widen(depth))
    if info.bit_depth == 8:
        return RawFrames(layout, scale, (*size, channels), np.dtype("u1"), _widen(depth))
    if info.pix_fmt.startswith("gbr"):
        bits = info.bit_depth + info.bit_depth % 2  # 9 bits travel as 10
        table = scaling_table(bits, depth)
        pix_fmt = f"gbr{'ap' if channels == 4 else 'p'}{bits}le"
        order = [2, 0, 1, 3][:channels]
        return RawFrames(
            pix_fmt, scale, (channels, *size), np.dtype("<u2"), lambda frame: table[np.stack(frame[order], axis=-1)]
        )
    pix_fmt = "rgba64le" if channels == 4 else "rgb48le"
    alpha_table = scaling_table(info.bit_depth, depth)

    def finish(frame):
        scaled = frame if depth == 16 else narrow(frame)
        if channels == 4:
            scaled[..., 3] = alpha_table[frame[..., 3] >> (16 - info.bit_depth)]
        return scaled

    return RawFrames(pix_fmt, scale, (*size, channels), np.dtype("<u2"), finish)


def _planes(info: MediaInfo, layout: str, scale: str, widened: Callable) -> RawFrames:
    """Frames of 8-bit YUV: (H, W, C) by their indices, in memory a plane a channel."""
    sent = layout if info.has_alpha or layout == "rgb+gray" else "rgb24"

    def finish(frame):
        if CHANNELS[layout] > CHANNELS[sent]:
            frame[3] = 255
        return widened(frame).transpose(1, 2, 0)

    shape = (CHANNELS[layout], info.height, info.width)
    return RawFrames(_PLANES[sent], scale, shape, np.dtype("u1"), finish, (*_GBR, 3)[: CHANNELS[sent]])


def matte_from_rgb(frame: np.ndarray) -> np.ndarray:
    """Alpha of a matte picture: mean of R, G and B, rounded; (..., 3) uint8 or uint16 -> (...) of the same type."""
    return ((frame.sum(axis=-1, dtype=np.uint32) + 1) // 3).astype(frame.dtype)


def with_gray(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (H, W, 4): R, G, B and what matte_from_rgb makes of them."""
    return np.concatenate([frame, matte_from_rgb(frame)[..., None]], axis=-1)


def _widen(depth: int) -> Callable[[np.ndarray], np.ndarray]:
    return widen if depth == 16 else lambda frame: frame


def _is_full_range(info: MediaInfo) -> bool:
    return info.pix_fmt.startswith("yuvj") or info.color_range == "full"
