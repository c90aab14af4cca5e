"""Animated WebP read frame by frame out of its file: Pillow's decoder holds the whole file twice.

Only animations with alpha whose frames replace what lies below them, as this package writes them; the caller leaves
all others, and damaged ones, to Pillow. The container: https://developers.google.com/speed/webp/docs/riff_container
"""

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_ANIMATION, _ALPHA = 0x02, 0x10  # flags of VP8X
_REPLACE, _CLEAR_AFTER = 0x02, 0x01  # flags of ANMF
_HEAD = 16  # bytes of ANMF before the picture's own chunks


@dataclass(frozen=True)
class Box:
    """One frame: where its chunks lie in the file, and its place on the canvas."""

    place: int
    length: int
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class WebpIndex:
    """The canvas, and of each frame the box."""

    width: int
    height: int
    boxes: tuple[Box, ...]


def find_boxes(path) -> WebpIndex | None:
    """Where the frames of an animation lie; None for a file that Pillow has to read."""
    path, boxes = Path(path), []
    with open(path, "rb") as file:
        head = file.read(30)
        if len(head) < 30 or head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X":
            return None
        if not head[20] & _ANIMATION or not head[20] & _ALPHA:
            return None
        end = 8 + struct.unpack_from("<I", head, 4)[0]
        if end > path.stat().st_size:
            return None
        width, height = _three_bytes(head, 24) + 1, _three_bytes(head, 27) + 1
        place = 30
        while place + 8 <= end:
            file.seek(place)
            block = file.read(8 + _HEAD)
            kind, length = struct.unpack_from("<4sI", block)
            if place + 8 + length > end:
                return None
            if kind == b"ANMF":
                box = _read_box(block, place, length)
                if box is None or box.left + box.width > width or box.top + box.height > height:
                    return None
                boxes.append(box)
            place += 8 + length + length % 2
    return WebpIndex(width, height, tuple(boxes)) if len(boxes) > 1 else None


def iter_boxes(path, index: WebpIndex, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the frames of these ascending numbers, (H, W, 4) uint8 RGBA.

    Raises:
        OSError, ValueError, SyntaxError: a frame's picture is damaged; as Pillow.
    """
    canvas = np.zeros((index.height, index.width, 4), np.uint8)
    whole = [number for number, box in enumerate(index.boxes) if (box.height, box.width) == canvas.shape[:2]]
    with open(path, "rb") as file:
        done = -1
        for wanted in indices:
            # What lies below a frame that fills the canvas is not seen.
            start = max((number for number in whole if done < number <= wanted), default=done + 1)
            for box in index.boxes[start : wanted + 1]:
                file.seek(box.place)
                part = _decode(file.read(box.length), box)
                canvas[box.top : box.top + box.height, box.left : box.left + box.width] = part
            done = wanted
            yield canvas.copy()


def _read_box(block: bytes, place: int, length: int) -> Box | None:
    flags = block[8 + 15]
    if not flags & _REPLACE or flags & _CLEAR_AFTER or length < _HEAD:
        return None
    left, top, width, height = (_three_bytes(block, 8 + 3 * number) for number in range(4))
    return Box(place + 8 + _HEAD, length - _HEAD, 2 * left, 2 * top, width + 1, height + 1)


def _decode(chunks: bytes, box: Box) -> np.ndarray:
    """The box's pixels, by way of a still that holds the same chunks."""
    size = struct.pack("<I", box.width - 1)[:3] + struct.pack("<I", box.height - 1)[:3]
    extended = b"VP8X" + struct.pack("<II", 10, _ALPHA) + size
    still = b"WEBP" + extended + chunks
    with Image.open(io.BytesIO(b"RIFF" + struct.pack("<I", len(still)) + still)) as image:
        if image.size != (box.width, box.height):
            raise ValueError(f"a frame of {image.width}x{image.height} in a box of {box.width}x{box.height}")
        return np.asarray(image.convert("RGBA"))


def _three_bytes(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 3], "little")
