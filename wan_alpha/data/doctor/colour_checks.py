"""Checks of colour against alpha: premultiplied, fringed, or of another moment."""

from collections.abc import Iterator

import numpy as np

from wan_alpha.data.doctor.evidence import Evidence
from wan_alpha.data.doctor.findings import Finding
from wan_alpha.media.state_verdict import judge_state

# Semi-transparent pixels that are looked at, and how far away the opaque colour beside them may be.
_MOST_PIXELS, _REACH = 20_000, 8
_FEWEST_PIXELS = 50
_DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
# A fringe: this many levels on average, of which this part follows alpha as a mixed-in backdrop does.
_FRINGE, _EXPLAINED = 12.0, 0.6
# Time offset: frames looked to either side; how well it must fit, and what part of that the fit as it is falls short.
# Slow subjects hardly fall short of it, so that the part is small, and both halves of the clip must agree instead.
_LONGEST_OFFSET, _FIT, _SHORT_BY = 8, 0.25, 0.05


def premultiplied(evidence: Evidence) -> Iterator[Finding]:
    """Premultiplied colour where straight colour is declared, or the other way round."""
    verdict, declared = judge_state(evidence.samples), evidence.row.source_state
    figures = {"share_above_alpha": round(verdict.share_above_alpha, 5), "num_semi": verdict.num_semi}
    name = evidence.row.foreground.name
    if declared == "straight" and verdict.state == "premultiplied":
        message = f"colour is premultiplied by alpha, straight is expected: {verdict.evidence}"
        yield Finding("premultiplied", "error", name, message, "unpremultiply", figures)
    elif declared == "premultiplied" and verdict.state == "straight":
        message = f"colour is straight, source_state says premultiplied: {verdict.evidence}"
        yield Finding("premultiplied", "error", name, message, figures=figures)


def fringe(evidence: Evidence) -> Iterator[Finding]:
    """A backdrop's colour mixed into the edges of straight colour, as keying leaves it.

        C = F + (1 - a)·(B - F)        (F: the opaque colour beside the pixel)

    B is fitted by least squares; the score is the mean of |C - F| in levels.
    """
    if judge_state(evidence.samples).state == "premultiplied":
        return  # its edges are dark by rights
    score, explained, backdrop = fringe_score(evidence.samples)
    if score < _FRINGE or explained < _EXPLAINED:
        return
    red, green, blue = (int(round(min(max(value, 0), 255))) for value in backdrop)
    message = (
        f"edges are tinted: colour {score:.0f} levels off the opaque colour beside it, {explained:.0%} of that as if "
        f"({red}, {green}, {blue}) were mixed in; key again with edge colours, or despill"
    )
    figures = {"score": round(score, 1), "explained": round(explained, 3), "backdrop": [red, green, blue]}
    yield Finding("fringe", "warning", evidence.row.foreground.name, message, figures=figures)


def fringe_score(samples: list[np.ndarray]) -> tuple[float, float, tuple[float, float, float]]:
    """Mean |C - F| of edge pixels in levels, the part of its square that a mixed-in backdrop explains, that backdrop.

    Args:
        samples: straight frames, (H, W, 4) uint8. All zero where too few edge pixels lie beside opaque ones.
    """
    parts = [_edge_pixels(frame) for frame in samples]
    colour, opaque, alpha = (np.concatenate(part) for part in zip(*parts, strict=True))
    if len(colour) < _FEWEST_PIXELS:
        return 0.0, 0.0, (0.0, 0.0, 0.0)
    weight = 1.0 - alpha[:, None] / 255.0
    difference = colour - opaque
    # difference = weight·(B - F)  =>  difference + weight·F = weight·B, one B per channel.
    backdrop = ((difference + weight * opaque) * weight).sum(axis=0) / (weight**2).sum()
    left = difference - weight * (backdrop - opaque)
    explained = 1.0 - float((left**2).sum() / max((difference**2).sum(), 1e-9))
    return float(np.abs(difference).mean()), explained, tuple(backdrop.tolist())


def _edge_pixels(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour (N, 3), nearest opaque colour (N, 3) and alpha (N,) of semi-transparent pixels beside opaque ones."""
    alpha = frame[..., 3]
    rows, columns = np.nonzero((alpha > 25) & (alpha < 230))
    step = len(rows) // _MOST_PIXELS + 1
    rows, columns = rows[::step], columns[::step]
    found = np.zeros(len(rows), bool)
    opaque = np.zeros((len(rows), 3))
    height, width = alpha.shape
    for distance in range(1, _REACH + 1):
        for down, right in _DIRECTIONS:
            y, x = rows + down * distance, columns + right * distance
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            y, x = np.where(inside, y, 0), np.where(inside, x, 0)
            hit = inside & ~found & (alpha[y, x] >= 250)
            opaque[hit] = frame[y[hit], x[hit], :3]
            found |= hit
    rows, columns = rows[found], columns[found]
    return frame[rows, columns, :3].astype(np.float64), opaque[found], alpha[rows, columns].astype(np.float64)


def time_offset(evidence: Evidence) -> Iterator[Finding]:
    """The matte shows another moment than the colour: it moves where the colour moved some frames ago, or will."""
    if evidence.matte is None:
        return
    fits = offset_fits(evidence.luma, evidence.alpha)
    best = max(fits, key=fits.get, default=0)
    if best == 0 or fits[best] < _FIT or fits[0] > (1 - _SHORT_BY) * fits[best]:
        return
    if not all(_agrees(best, part) for part in _halves(evidence.luma, evidence.alpha)):
        return
    late = "late" if best < 0 else "early"
    message = (
        f"the matte is {abs(best)} frame{'s' if abs(best) > 1 else ''} {late}: its motion fits the colour's "
        f"{fits[best]:.2f} then, {fits[0]:.2f} as it is (1 = perfectly)"
    )
    figures = {"frames": best, "fit": round(fits[best], 3), "fit_as_is": round(fits[0], 3)}
    yield Finding("time_offset", "warning", evidence.matte_name, message, "re-pair", figures)


def _halves(luma: np.ndarray, alpha: np.ndarray) -> Iterator[dict[int, float]]:
    middle = len(luma) // 2
    for half in (slice(None, middle + 1), slice(middle, None)):
        yield offset_fits(luma[half], alpha[half])


def _agrees(offset: int, fits: dict[int, float]) -> bool:
    """Whether a part of a clip, if it moves and is long enough to tell, shows the offset of the whole."""
    if offset not in fits:
        return True
    return fits[offset] >= _FIT and fits[offset] > fits[0] and abs(max(fits, key=fits.get) - offset) <= 1


def offset_fits(luma: np.ndarray, alpha: np.ndarray) -> dict[int, float]:
    """How well alpha's motion fits that of the colour `offset` frames later: offset -> correlation, -1 to 1.

    Motion is |frame[t] - frame[t-1]|, less its mean over the frame. Empty where either stands still or is too short.

    Args:
        luma, alpha: small maps, (T, h, w) each.
    """
    moved = [np.abs(np.diff(maps, axis=0)) for maps in (luma, alpha)]
    moved = [maps - maps.mean(axis=(1, 2), keepdims=True) for maps in moved]
    colour, matte = (maps.reshape(len(maps), -1) for maps in moved)
    length = len(colour)
    longest = min(_LONGEST_OFFSET, length // 2)
    if longest < 1 or min(np.abs(colour).mean(), np.abs(matte).mean()) < 0.05:
        return {}
    fits = {}
    for offset in range(-longest, longest + 1):
        here = colour[max(offset, 0) : length + min(offset, 0)]
        there = matte[max(-offset, 0) : length - max(offset, 0)]
        norm = np.sqrt((here**2).sum() * (there**2).sum())
        fits[offset] = float((here * there).sum() / norm) if norm > 0 else 0.0
    return fits


CHECKS = (premultiplied, fringe, time_offset)
