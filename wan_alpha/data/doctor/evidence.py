"""One pass over a row's frames, from which every check draws: counts, a few whole frames, small maps of all others."""

import hashlib
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from wan_alpha.data.doctor.streams import Parts, is_expanded, iter_joined, open_pair
from wan_alpha.data.manifest import Row
from wan_alpha.errors import DataError
from wan_alpha.media.matte_range import look_at_matte
from wan_alpha.media.probe import MediaInfo
from wan_alpha.media.read import iter_frames

NUM_SAMPLES = 5
# Small maps: at most this many pixels per side, of at most this many frames.
_MAP_SIDE, MAP_FRAMES = 96, 121
_FINGERPRINT_SIDE = 8


@dataclass
class Evidence:
    """What one row's frames show.

    Attributes:
        row: the row; root: the dataset's folder.
        colour, matte: the two files as probed, the second None for one RGBA file.
        num_frames: (colour, matte) frames that were decoded; equal for one RGBA file.
        alpha_counts: pixels of each alpha level, (256,) int64, over all frames that have both.
        clear_frames: frames without a single pixel above alpha 0.
        samples: up to NUM_SAMPLES frames spread evenly, (H, W, 4) uint8 RGBA as stored.
        luma, alpha: small maps of the first MAP_FRAMES frames, (T, h, w) float32, 0..255.
        matte_spread: mean difference of R, G and B in the matte, levels of 255; 0 for an alpha plane.
        is_expanded: the matte is of limited range, and reading stretches it.
        digest: hash of every decoded frame.
        fingerprint: premultiplied RGBA of the first, middle and last sample, 8x8 each, uint8.
    """

    row: Row
    root: Path
    colour: MediaInfo
    matte: MediaInfo | None
    num_frames: tuple[int, int] = (0, 0)
    alpha_counts: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    clear_frames: int = 0
    samples: list[np.ndarray] = field(default_factory=list)
    luma: np.ndarray | None = None
    alpha: np.ndarray | None = None
    matte_spread: float = 0.0
    is_expanded: bool = False
    digest: str = ""
    fingerprint: np.ndarray | None = None

    @property
    def has_alpha(self) -> bool:
        """A matte of the colour's size, or a file with an alpha plane."""
        if self.matte is None:
            return self.colour.has_alpha or self.row.packing != "none"
        return (self.colour.width, self.colour.height) == (self.matte.width, self.matte.height)

    @property
    def matte_name(self) -> str:
        """Name of the file that alpha is in."""
        return self.row.files[-1].name


def gather(row: Row, root, colour: MediaInfo, matte: MediaInfo | None) -> Evidence:
    """Decode every frame of a row once. Streams of two lengths or sizes are no error here.

    Raises:
        DataError: a file cannot be decoded to its end.
    """
    evidence = Evidence(row, Path(root), colour, matte)
    if not evidence.has_alpha:
        counted = [sum(1 for _ in iter_frames(file, "rgb24")) for file in row.files]
        evidence.num_frames = counted[0], counted[-1]
        return evidence
    if matte is not None or row.packing != "none":
        evidence.matte_spread = look_at_matte(row.matte or row.foreground, row.packing).spread
    evidence.is_expanded = is_expanded(row)
    length = min(info.num_frames for info in (colour, matte) if info is not None)
    wanted = {round(place) for place in np.linspace(0, length - 1, min(NUM_SAMPLES, length))}
    factor = max(1, -(-max(colour.width, colour.height) // _MAP_SIDE))
    digest, lumas, alphas, counted = hashlib.blake2b(digest_size=16), [], [], [0, 0]
    for index, (rgb, alpha) in enumerate(_iter_parts(row)):
        counted[0] += rgb is not None
        counted[1] += alpha is not None
        if rgb is None or alpha is None:
            continue
        digest.update(np.ascontiguousarray(rgb))
        digest.update(np.ascontiguousarray(alpha))
        counts = np.bincount(alpha.reshape(-1), minlength=256)
        evidence.alpha_counts += counts
        evidence.clear_frames += int(counts[0] == alpha.size)
        if index < MAP_FRAMES:
            lumas.append(np.asarray(Image.fromarray(rgb).convert("L").reduce(factor), np.float32))
            alphas.append(np.asarray(Image.fromarray(alpha).reduce(factor), np.float32))
        if index in wanted:
            evidence.samples.append(np.dstack([rgb, alpha]))
    evidence.num_frames = counted[0], counted[1]
    if not evidence.samples:
        raise DataError(f"{row.foreground}: no frame could be decoded")
    evidence.luma, evidence.alpha = np.stack(lumas), np.stack(alphas)
    evidence.digest = digest.hexdigest()
    evidence.fingerprint = fingerprint(evidence.samples)
    return evidence


def _iter_parts(row: Row) -> Parts:
    """(rgb, alpha) of each frame, None where one of two streams has ended."""
    if row.matte is None:
        return iter_joined(row)
    return zip_longest(*open_pair(row, num_frames=1 if row.kind == "static" else None))


def fingerprint(samples: list[np.ndarray]) -> np.ndarray:
    """The look of a clip in a few numbers: premultiplied RGBA of three frames, (3, 8, 8, 4) uint8."""
    chosen = [samples[round(place)] for place in np.linspace(0, len(samples) - 1, 3)]
    size = (_FINGERPRINT_SIDE, _FINGERPRINT_SIDE)
    # Pillow's "RGBa" is premultiplied: hidden colour under clear pixels does not count.
    small = [Image.fromarray(frame).convert("RGBa").resize(size, Image.Resampling.BOX) for frame in chosen]
    return np.stack([np.frombuffer(image.tobytes(), np.uint8).reshape(*size, 4) for image in small])


def fingerprint_distance(one: np.ndarray, other: np.ndarray) -> float:
    """How much of what two fingerprints show differs: 0, the same, to 1, nothing in common."""
    one, other = one.astype(np.int32), other.astype(np.int32)
    return float(np.abs(one - other).sum() / max((one + other).sum(), 1))
