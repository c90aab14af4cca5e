"""Straight RGBA frames resized without bleeding hidden colour into edges: once plainly, once fast."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from wan_alpha.alpha.ranges import uint8_to_unit

# Below this alpha (half a level of 255) dividing by it would only amplify rounding.
_CLEAR = 0.5 / 255.0
# Part of a frame that may be at edges before computing the whole of it in floats is as fast.
_FEW = 0.4


def resize_straight(frame: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize one straight RGBA frame in floats.

        alpha' = R(alpha),  rgb' = R(rgb * alpha) / R(alpha)        (R: antialiased bilinear; Porter & Duff 1984)

    Where alpha' vanishes the colour is R(rgb), so that colour under clear pixels stays what it was. A frame that has
    the size already is returned exactly.

    Args:
        frame: (H, W, 4) uint8, straight.

    Returns:
        (4, height, width) float32 in [0, 1], straight.
    """
    rgba = uint8_to_unit(frame.permute(2, 0, 1))
    if rgba.shape[1:] == (height, width):
        return rgba
    rgb, alpha = rgba[:3], rgba[3:]
    stack = torch.cat([rgb * alpha, alpha, rgb])[None]
    stack = F.interpolate(stack, (height, width), mode="bilinear", antialias=True, align_corners=False)[0]
    premultiplied, alpha, hidden = stack[:3], stack[3:4], stack[4:]
    rgb = torch.where(alpha > _CLEAR, premultiplied / alpha.clamp(min=_CLEAR), hidden)
    return torch.cat([rgb, alpha]).clamp(0.0, 1.0)


def resize_and_cut(frame: np.ndarray, size: tuple[int, int], cut: tuple[int, int, int, int], out: torch.Tensor) -> None:
    """The same in levels, of a part of the resized frame and several times faster.

    Where the resized alpha is 0 or 255, R(rgb), which eight bits hold and vector instructions compute, is right: the
    weights are equal there, or nothing is seen. All other pixels are computed in floats, one by one, and are exact.

    Alpha is within one level of resize_straight's. So is colour where alpha is between, or all that goes into a pixel
    is opaque. A resized alpha of 255 may hide one part in 255 that is not: there colour is within two levels, and only
    where black lies next to white.

    Args:
        frame: (H, W, 4) uint8, straight; fastest where the memory holds a plane a channel.
        size: (height, width) of the whole frame when resized.
        cut: (top, left, height, width) of the part wanted.
        out: (4, height, width) float32, filled with levels in [0, 255], straight.
    """
    top, left, height, width = cut
    window = slice(top, top + height), slice(left, left + width)
    planes = torch.from_numpy(frame).permute(2, 0, 1)
    if frame.shape[:2] == size:
        _copy_channels(planes[:, *window], out)
        return
    levels = F.interpolate(planes[None], size, mode="bilinear", antialias=True, align_corners=False)[0][:, *window]
    _copy_channels(levels, out)
    # Less 1, so that 0 wraps round to 255: one comparison finds 1 to 254.
    rows, columns = np.divmod(np.flatnonzero(levels[3].numpy() - np.uint8(1) < 254), width)
    if len(rows) > _FEW * height * width:
        out.copy_(resize_straight(torch.from_numpy(frame), *size)[:, *window]).mul_(255)
    elif len(rows):
        out[:, rows, columns] = _resize_pixels(frame, size, rows + top, columns + left)


def _copy_channels(levels: torch.Tensor, out: torch.Tensor) -> None:
    for channel, target in zip(levels, out, strict=True):  # one by one: a copy of all at once is several times slower
        target.copy_(channel)


def _resize_pixels(frame: np.ndarray, size: tuple[int, int], rows: np.ndarray, columns: np.ndarray) -> torch.Tensor:
    """Single pixels of the resized frame, (4, N) levels, in floats and premultiplied space."""
    row_places, row_weights = _filter_taps(frame.shape[0], size[0])
    column_places, column_weights = _filter_taps(frame.shape[1], size[1])
    places = (row_places[rows] * frame.shape[1])[:, :, None] + column_places[columns][:, None, :]
    places = places.reshape(len(rows), -1)
    planes = frame.transpose(2, 0, 1).reshape(4, -1)  # a copy only where the memory does not hold them so
    weights = (row_weights[rows][:, :, None] * column_weights[columns][:, None, :]).reshape(len(rows), -1)
    weights *= planes[3].take(places)
    result = np.empty((4, len(rows)), np.float32)
    result[3] = weights.sum(axis=1)
    for plane, target in zip(planes[:3], result[:3], strict=True):
        np.einsum("np,np->n", weights, plane.take(places), out=target)
    result[:3] /= np.maximum(result[3], 1e-6)
    return torch.from_numpy(result).clamp_(0.0, 255.0)


@lru_cache(maxsize=64)
def _filter_taps(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel along one side: the pixels that go into it and their weights, (wanted, taps) each.

    The triangle filter as torch's antialiased bilinear interpolation has it: as wide as a pixel of the coarser side.
    """
    scale = length / wanted
    reach = max(scale, 1.0)
    centres = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), length)
    places = first[:, None] + np.arange(int((last - first).max()))
    weights = np.maximum(1.0 - np.abs((places - centres[:, None] + 0.5) / reach), 0.0)
    weights[places >= last[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.minimum(places, length - 1), weights.astype(np.float32)
