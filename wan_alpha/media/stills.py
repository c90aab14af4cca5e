"""Stills, animations (GIF, APNG, WebP, TIFF pages) and folders of frames, read by Pillow."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from wan_alpha.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".apng", ".gif", ".webp", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"})
_READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageHeader:
    format: str
    width: int
    height: int
    fps: float
    num_frames: int
    mode: str
    has_alpha: bool


def is_image_path(path) -> bool:
    """True for what this module reads: a folder of frames or a file with an image suffix."""
    path = Path(path)
    return path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES


def list_frames(folder) -> list[Path]:
    """The image files of a folder in natural order (frame2 before frame10).

    Raises:
        DataError: the folder holds no image.
    """
    frames = [p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not frames:
        raise DataError(f"{folder}: a folder without image files is not a clip")
    return sorted(frames, key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", p.name.lower())])


def read_header(path) -> ImageHeader:
    """Describe a still, an animation, or a folder by its first frame; that frame is decoded, so a cut file shows.

    Raises:
        DataError: not an image, cut short, or a pixel format without 8-bit meaning.
    """
    path = Path(path)
    if path.is_dir():
        files = list_frames(path)
        first = read_header(files[0])
        return ImageHeader("frames", first.width, first.height, 0.0, len(files), first.mode, first.has_alpha)
    with _opened(path) as image:
        num_frames = getattr(image, "n_frames", 1)
        milliseconds = image.info.get("duration", 0) if num_frames > 1 else 0
        has_alpha = "A" in image.getbands() or "transparency" in image.info
        header_format, mode = (image.format or "image").lower(), image.mode
        frame = _to_rgba(image, path)
    fps = round(1000.0 / milliseconds, 3) if milliseconds else 0.0
    return ImageHeader(header_format, frame.shape[1], frame.shape[0], fps, num_frames, mode, has_alpha)


def iter_rgba(path, start: int = 0, num_frames: int | None = None) -> Iterator[np.ndarray]:
    """Yield straight RGBA frames, (H, W, 4) uint8, from `start`, at most `num_frames` of them.

    Raises:
        DataError: a frame cannot be read, or its size differs from the first one's.
    """
    path = Path(path)
    stop = None if num_frames is None else start + num_frames
    if path.is_dir():
        frames = (next(iter_rgba(file, 0, 1)) for file in list_frames(path)[start:stop])
    else:
        frames = _iter_animation(path, start, stop)
    size = None
    for index, frame in enumerate(frames, start):
        size = size or frame.shape
        if frame.shape != size:
            raise DataError(
                f"{path}: frame {index} is {frame.shape[1]}x{frame.shape[0]}, the ones before are {size[1]}x{size[0]}"
            )
        yield frame


def _iter_animation(path: Path, start: int, stop: int | None) -> Iterator[np.ndarray]:
    with _opened(path) as image:
        total = getattr(image, "n_frames", 1)
        for index in range(start, total if stop is None else min(stop, total)):
            try:
                image.seek(index)
            except _READ_ERRORS as error:
                raise DataError(f"{path}: frame {index} cannot be read ({error})") from error
            yield _to_rgba(image, path)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image, or one of a kind that Pillow cannot read") from error
    except _READ_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def _to_rgba(image: Image.Image, path: Path) -> np.ndarray:
    try:
        if image.mode.startswith("I"):
            return _from_16_bit_grey(np.asarray(image), path)
        if image.mode == "F":
            raise DataError(f"{path}: floating-point pixels have no fixed white; convert the image to 8 or 16 bits")
        upright = ImageOps.exif_transpose(image) if getattr(image, "n_frames", 1) == 1 else image
        return np.array(upright.convert("RGBA"))
    except DataError:
        raise
    except _READ_ERRORS as error:
        raise DataError(f"{path}: the image is cut short or damaged ({error})") from error


def _from_16_bit_grey(values: np.ndarray, path: Path) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{path}: pixel values up to {values.max()}; 8 or 16 bits per channel can be read")
    # Pillow would clip at 255; 65535 / 257 = 255 keeps the scale.
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=-1)
