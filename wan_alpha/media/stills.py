"""Stills, animations (GIF, APNG, WebP, TIFF pages) and folders of frames, read by Pillow."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from wan_alpha.errors import DataError
from wan_alpha.media import webp_frames, wide_stills
from wan_alpha.media.animation_times import frame_durations
from wan_alpha.media.missing import no_such
from wan_alpha.media.pixel_depth import narrow, widen

IMAGE_SUFFIXES = frozenset({".png", ".apng", ".gif", ".webp", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"})
_READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)

# Tags of EXIF and TIFF.
_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 258
_FILES_AHEAD = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ImageHeader:
    """`durations`: seconds that each frame of an animation is shown, () where it names none."""

    format: str
    width: int
    height: int
    fps: float
    num_frames: int
    mode: str
    has_alpha: bool
    bit_depth: int = 8
    durations: tuple[float, ...] = ()


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
        return replace(first, format="frames", fps=0.0, num_frames=len(files))
    if webp := _find_webp_boxes(path):
        num_frames, bit_depth, has_alpha, header_format, mode = len(webp.boxes), 8, True, "webp", "RGBA"
        frame = next(_iter_webp(path, webp, [0]))
    else:
        with _opened(path) as image:
            num_frames, bit_depth = getattr(image, "n_frames", 1), _bit_depth(image)
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            header_format, mode = (image.format or "image").lower(), image.mode
            frame = _to_rgba(image, path)
    durations = tuple(frame_durations(path)) if num_frames > 1 else ()
    if len(durations) != num_frames:
        durations = ()
    fps = round(num_frames / sum(durations), 3) if durations else 0.0
    size = frame.shape[1], frame.shape[0]
    return ImageHeader(header_format, *size, fps, num_frames, mode, has_alpha, bit_depth, durations)


def iter_rgba(path, indices: Sequence[int], *, depth: int = 8) -> Iterator[np.ndarray]:
    """Yield the straight RGBA frames of these ascending numbers, (H, W, 4) uint8, or uint16 with depth 16.

    Raises:
        DataError: a frame cannot be read, or its size differs from the first one's.
    """
    path = Path(path)
    if path.is_dir():
        files = list_frames(path)
        frames = _ahead(lambda index: _read_still(files[index], depth), indices)
    else:
        frames = _iter_animation(path, indices, depth)
    size = None
    for index, frame in zip(indices, frames, strict=False):
        size = size or frame.shape
        if frame.shape != size:
            raise DataError(
                f"{path}: frame {index} is {frame.shape[1]}x{frame.shape[0]}, the ones before are {size[1]}x{size[0]}"
            )
        yield frame


def _ahead(read: Callable[[int], np.ndarray], indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Results of read(index) in order, a few files ahead: decoding leaves Python to other threads meanwhile."""
    if len(indices) == 1:
        yield read(indices[0])
        return
    with ThreadPoolExecutor(_FILES_AHEAD) as pool:
        waiting = deque()
        try:
            for index in indices:
                waiting.append(pool.submit(read, index))
                if len(waiting) > _FILES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read_still(path: Path, depth: int) -> np.ndarray:
    return next(_iter_animation(path, [0], depth))


def _find_webp_boxes(path: Path) -> webp_frames.WebpIndex | None:
    if path.suffix.lower() != ".webp" or not path.is_file():
        return None
    return webp_frames.find_boxes(path)


def _iter_webp(path: Path, webp: webp_frames.WebpIndex, indices: Sequence[int]) -> Iterator[np.ndarray]:
    try:
        yield from webp_frames.iter_boxes(path, webp, indices)
    except _READ_ERRORS as error:
        raise DataError(f"{path}: a frame is cut short or damaged ({error})") from error


def _iter_animation(path: Path, indices: Sequence[int], depth: int) -> Iterator[np.ndarray]:
    if webp := _find_webp_boxes(path):
        yield from (widen(frame) if depth == 16 else frame for frame in _iter_webp(path, webp, indices))
        return
    with _opened(path) as image:
        is_wide = getattr(image, "n_frames", 1) == 1 and _bit_depth(image) > 8
        if is_wide and not image.mode.startswith("I"):  # of several such channels Pillow gives the upper 8 bits
            orientation = image.getexif().get(_ORIENTATION, 1)
            frame = upright(wide_stills.read_rgba64(path, image.width, image.height, image.format), orientation)
            yield frame if depth == 16 else narrow(frame)
            return
        for index in indices:
            try:
                image.seek(index)
            except _READ_ERRORS as error:
                raise DataError(f"{path}: frame {index} cannot be read ({error})") from error
            frame = _to_rgba(image, path, depth)
            yield frame if depth == 8 or frame.dtype == np.uint16 else widen(frame)


def _bit_depth(image: Image.Image) -> int:
    """Bits of a stored channel; Pillow's mode does not tell."""
    if image.format == "PNG" and image.fp is not None:
        place = image.fp.tell()
        image.fp.seek(24)  # in IHDR, after signature, length, name, width and height
        depth = image.fp.read(1)[0]
        image.fp.seek(place)
        return max(depth, 8)
    if image.format == "TIFF":
        return max(8, *image.tag_v2.get(_BITS_PER_SAMPLE, (8,)))
    return 8


def upright(frame: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF's orientation asks for, as ImageOps.exif_transpose does it."""
    if orientation in (5, 6, 7, 8):
        frame = frame.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        frame = frame[:, ::-1]
    if orientation in (3, 4, 7, 8):
        frame = frame[::-1]
    return np.ascontiguousarray(frame)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise DataError(no_such(path)) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image, or one of a kind that Pillow cannot read") from error
    except _READ_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def _to_rgba(image: Image.Image, path: Path, depth: int = 8) -> np.ndarray:
    try:
        if image.mode.startswith("I"):
            return _from_16_bit_grey(np.asarray(ImageOps.exif_transpose(image)), path, depth)
        if image.mode == "F":
            raise DataError(f"{path}: floating-point pixels have no fixed white; convert the image to 8 or 16 bits")
        upright = ImageOps.exif_transpose(image) if getattr(image, "n_frames", 1) == 1 else image
        return np.array(upright.convert("RGBA"))
    except DataError:
        raise
    except _READ_ERRORS as error:
        raise DataError(f"{path}: the image is cut short or damaged ({error})") from error


def _from_16_bit_grey(values: np.ndarray, path: Path, depth: int) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{path}: pixel values up to {values.max()}; 8 or 16 bits per channel can be read")
    # Pillow would clip at 255.
    grey = values.astype(np.uint16) if depth == 16 else narrow(values)
    return np.stack([grey, grey, grey, np.full_like(grey, np.iinfo(grey.dtype).max)], axis=-1)
