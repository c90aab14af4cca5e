"""Every format that carries alpha, read back after writing: what it lost is a figure, and too much of it an error."""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from wan_alpha.errors import DataError
from wan_alpha.media.formats import OutputFormat
from wan_alpha.media.gif import OPAQUE_FROM
from wan_alpha.media.png_codec import decode_png
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_frames, matte_from_rgb
from wan_alpha.media.sprite_sheet import sheet_path
from wan_alpha.media.stacked import luma
from wan_alpha.media.verify import AlphaError, compare_alpha


def verify_output(path, output_format: OutputFormat, wanted: Iterable[np.ndarray]) -> AlphaError:
    """Compare the alpha of a written output with what was meant, frame by frame.

    Args:
        path: as it was given to the writer; output_format: one with an alpha.
        wanted: alpha planes, (H, W), uint8 or uint16.

    Raises:
        DataError: alpha was lost: it is missing, flat, further off than the format may be, or a format of clear and
            opaque pixels keeps nothing visible of a clip that has something. The file stays.
    """
    path = Path(path)
    if output_format.alpha == "plane" and not probe(path).has_alpha:
        info = probe(path)
        raise DataError(f"{path}: alpha was lost: the file has no alpha plane ({info.codec}, {info.pix_fmt})")
    highest = []
    if output_format.is_binary:
        wanted = _made_binary(wanted, highest)
    wanted = iter(wanted)
    first = next(wanted)
    error = compare_alpha(path, iter_stored_alpha(path, output_format, first.shape), _again(first, wanted))
    limit = output_format.max_error
    if error.is_flat or (error.max_error > limit if limit is not None else error.psnr < output_format.min_psnr):
        allowed = f"{output_format.min_psnr:g} dB" if limit is None else f"an error of {limit:g}/255"
        found = "it reads back as opaque everywhere" if error.is_flat else f"{error}, where {allowed} is the limit"
        raise DataError(f"{path}: alpha was lost in writing {output_format.name}: {found}")
    if highest and 0 < max(highest) < OPAQUE_FROM:
        raise DataError(
            f"{path}: nothing of the clip is left to see: {output_format.name} makes alpha below {OPAQUE_FROM} clear, "
            f"and the clip's largest is {max(highest)}; webp, apng or webm keep semi-transparent pixels"
        )
    return error


def iter_stored_alpha(path, output_format: OutputFormat, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield the alpha planes of an output, (H, W), one by one.

    Args:
        size: (height, width) of the clip: what was added to make sizes even is cut off.

    Raises:
        DataError: the output cannot be read.
    """
    path, (height, width) = Path(path), size
    if output_format.alpha == "archive":
        yield from _iter_archive(path, output_format.depth)
    elif output_format.alpha == "cells":
        yield from _iter_cells(path)
    elif output_format.alpha == "plane":
        for frame in iter_frames(path, "rgba", depth=output_format.depth):
            yield frame[:height, :width, 3]
    elif output_format.alpha == "below":
        top = height + height % 2  # below the upper half, which is padded to an even size
        for frame in iter_frames(path, "rgb24"):
            yield luma(frame[top : top + height, :width])
    else:
        for frame in iter_frames(path, "rgb24"):
            yield matte_from_rgb(frame[:height, :width])


def _iter_archive(path: Path, depth: int) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            data = archive.read(name)
            # Pillow reads no more than 8 bits of a channel.
            frame = decode_png(data) if depth == 16 else np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
            yield frame[..., 3]


def _iter_cells(path: Path) -> Iterator[np.ndarray]:
    number = 0
    while (sheet := sheet_path(path, number)).exists():
        described = json.loads(sheet.with_suffix(".json").read_text(encoding="utf-8"))
        with Image.open(sheet) as image:
            alpha = np.asarray(image.getchannel("A"))
        for frame in described["frames"]:
            x, y, width, height = (frame["frame"][key] for key in "xywh")
            yield alpha[y : y + height, x : x + width]
        number += 1


def _made_binary(planes: Iterable[np.ndarray], highest: list[int]) -> Iterator[np.ndarray]:
    """The planes as a format of clear and opaque pixels holds them; the highest level of each goes into `highest`."""
    for plane in planes:
        highest.append(int(plane.max()))
        yield np.where(plane >= OPAQUE_FROM, np.uint8(255), np.uint8(0))


def _again(first, others):
    yield first
    yield from others
