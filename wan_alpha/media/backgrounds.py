"""What a preview is shown over: a checkerboard, a colour, a picture or another clip."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from wan_alpha.alpha.composite import BACKGROUND_COLOR_NAMES, background_color
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_frames

_HEX = re.compile(r"#?([0-9a-fA-F]{6})")


def parse_background(text: str):
    """What a background's name means.

    Args:
        text: "checkerboard", a colour ("black", ..., "grey", "#rrggbb", "r,g,b") or the path of a picture or clip.

    Returns:
        "checkerboard", (R, G, B) in 0..255, or a Path.

    Raises:
        ConfigError: none of these.
    """
    text = text.strip()
    if text == "checkerboard":
        return text
    if text in (*BACKGROUND_COLOR_NAMES, "grey"):
        return tuple(round((value + 1) * 127.5) for value in background_color(text))
    if found := _HEX.fullmatch(text):
        return tuple(bytes.fromhex(found.group(1)))
    parts = text.split(",")
    if len(parts) == 3 and all(part.strip().isdigit() and int(part) <= 255 for part in parts):
        return tuple(int(part) for part in parts)
    if Path(text).exists():
        return Path(text)
    raise ConfigError(
        f"background {text!r}: neither checkerboard, nor a colour ({', '.join(BACKGROUND_COLOR_NAMES)}, grey, #rrggbb "
        "or r,g,b with 0 to 255), nor a file that exists"
    )


def iter_plates(path, height: int, width: int) -> Iterator[np.ndarray]:
    """The frames of a picture or clip without end, (H, W, 3) uint8: cut to the shape, resized, and begun again.

    Raises:
        DataError: it cannot be read.
    """
    if probe(path).is_still:
        plate = _fit(next(iter_frames(path, "rgb24")), height, width)
        while True:
            yield plate
    while True:
        num_plates = 0
        for frame in iter_frames(path, "rgb24"):
            num_plates += 1
            yield _fit(frame, height, width)
        if num_plates == 0:
            raise DataError(f"{path}: no frames to lay a clip over")


def _fit(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    own_height, own_width = frame.shape[:2]
    scale = min(own_height / height, own_width / width)
    cut_height, cut_width = height * scale, width * scale
    left, top = (own_width - cut_width) / 2, (own_height - cut_height) / 2
    box = (left, top, left + cut_width, top + cut_height)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=box))
