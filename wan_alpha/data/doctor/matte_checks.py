"""Checks of alpha itself: is anything there, is it the right way round, is it full range, is its black black."""

from collections.abc import Iterator

import numpy as np

from wan_alpha.data.doctor.evidence import Evidence
from wan_alpha.data.doctor.findings import Finding

# Mean spread of R, G and B above which a matte is a colour picture; chroma noise of lossy codecs stays far below.
_MATTE_SPREAD = 8.0
# Lossy codecs leave an empty or full matte a few levels off.
_SLACK = 3
# Limited range: where its black and white lie, and how much of the matte must lie there.
_LIMITED_BLACK, _LIMITED_WHITE, _LIMITED_SHARE = 16, 235, 0.2
# Noise of a compressed matte stays below the first; blocks that reach the second, and their neighbours, show a subject.
_NOISE_TOP, _SUBJECT = 24, 40
_BLOCK = 16
# Parts of the empty area: from the first on, noise is told; the threshold leaves out the second's rest.
_NOISE_SHARE, _NOISE_COVERED = 0.002, 0.999
# Texture in mean levels between neighbouring pixels.
_FLAT, _TEXTURED = 1.0, 3.0


def colour_matte(evidence: Evidence) -> Iterator[Finding]:
    """A matte that is a colour picture."""
    if evidence.matte_spread > _MATTE_SPREAD:
        spread = evidence.matte_spread
        message = f"a matte is grey, this is a colour picture (R, G and B differ by {spread:.0f} of 255 on average); "
        message += "are colour and matte swapped?"
        repair = "re-pair" if evidence.matte is not None else None
        yield Finding("colour_matte", "error", evidence.matte_name, message, repair, {"spread": round(spread, 2)})


def all_clear(evidence: Evidence) -> Iterator[Finding]:
    """Alpha that never rises: nothing is to be seen."""
    highest = int(np.flatnonzero(evidence.alpha_counts)[-1])
    if highest <= _SLACK:
        message = f"alpha is {_at_most(highest)} everywhere, there is nothing to see"
        yield Finding("all_clear", "error", evidence.matte_name, message)


def all_opaque(evidence: Evidence) -> Iterator[Finding]:
    """Alpha that never falls: nothing is transparent."""
    lowest = int(np.flatnonzero(evidence.alpha_counts)[0])
    if lowest >= 255 - _SLACK:
        least = "255" if lowest == 255 else f"{lowest} or more"
        message = f"alpha is {least} everywhere, nothing is transparent; was alpha lost on the way?"
        yield Finding("all_opaque", "error", evidence.matte_name, message)


def flat_matte(evidence: Evidence) -> Iterator[Finding]:
    """Alpha of one level everywhere, neither clear nor opaque: a tint, not a matte."""
    lowest, highest = _extremes(evidence)
    if lowest > _SLACK and highest < 255 - _SLACK and highest - lowest <= _SLACK:
        message = f"alpha is {lowest} everywhere (to {highest}); a matte tells a subject from its surroundings"
        yield Finding("flat_matte", "warning", evidence.matte_name, message, figures={"level": lowest})


def clear_frames(evidence: Evidence) -> Iterator[Finding]:
    """Some frames show nothing."""
    count, total = evidence.clear_frames, min(evidence.num_frames)
    if 0 < count < total:
        message = f"{count} of {total} frames are clear everywhere"
        yield Finding("clear_frames", "note", evidence.matte_name, message, figures={"frames": count})


def limited_range(evidence: Evidence) -> Iterator[Finding]:
    """Alpha that ends at 16 and 235: limited range that is not marked as such."""
    if evidence.is_expanded:
        message = "the matte is of limited range (16 to 235); it is stretched to 0 to 255 on reading"
        yield Finding("limited_range", "note", evidence.matte_name, message)
        return
    if evidence.row.matte_range == "full":
        return  # somebody who knows has said so
    counts, total = evidence.alpha_counts, evidence.alpha_counts.sum()
    inside = counts[_LIMITED_BLACK - 2 : _LIMITED_WHITE + 3].sum() / total
    black = counts[_LIMITED_BLACK - 2 : _LIMITED_BLACK + 3].sum() / total
    white = counts[_LIMITED_WHITE - 2 : _LIMITED_WHITE + 3].sum() / total
    is_piled = black > _LIMITED_SHARE / 10 and white > _LIMITED_SHARE / 100 and black + white > _LIMITED_SHARE
    if inside > 0.999 and is_piled:
        message = "alpha ends at 16 and 235: limited range that is not marked as such; clear is 0 and opaque 255"
        figures = {"at_16": round(float(black), 4), "at_235": round(float(white), 4)}
        yield Finding("limited_range", "warning", evidence.matte_name, message, "expand", figures)


def inverted(evidence: Evidence) -> Iterator[Finding]:
    """Alpha the wrong way round: opaque where the picture is empty, clear where it has content.

    Two signs: the frame's border is opaque while its inside is clear; and what would be hidden has texture while what
    would be shown is flat. Both together are an error that can be repaired, the first alone may be meant (a frame).
    """
    border, inside = _border_and_inside(evidence.alpha)
    if border < 0.9 or inside > border - 0.2:
        return
    shown, hidden = _texture(evidence.samples)
    figures = {"border_alpha": round(border, 3), "inside_alpha": round(inside, 3)}
    figures |= {"texture_shown": round(shown, 2), "texture_hidden": round(hidden, 2)}
    message = f"the frame's border is opaque ({border:.2f} of 1), its inside less so ({inside:.2f})"
    if shown < _FLAT and hidden > _TEXTURED:
        message += "; what is hidden has content, what is shown is flat: alpha is inverted (white must be the subject)"
        yield Finding("inverted", "error", evidence.matte_name, message, "invert", figures)
    else:
        message += "; is alpha inverted? White must be the subject"
        yield Finding("inverted", "warning", evidence.matte_name, message, figures=figures)


def matte_noise(evidence: Evidence) -> Iterator[Finding]:
    """Alpha a little above 0 far from any subject: a hard render would call it opaque."""
    counts = sum((_far_counts(frame[..., 3]) for frame in evidence.samples), np.zeros(256, np.int64))
    total = int(counts.sum())
    if total == 0 or counts[1:].sum() / total < _NOISE_SHARE:
        return
    threshold = int(np.searchsorted(np.cumsum(counts), _NOISE_COVERED * total))
    if not 0 < threshold <= _NOISE_TOP:
        return  # too strong for noise: faint content such as smoke
    share = float(counts[1:].sum() / total)
    message = (
        f"{share:.1%} of the empty area has alpha 1 to {int(np.flatnonzero(counts)[-1])}, which a hard render at "
        f"threshold 0 shows as opaque; suggested hard_threshold {threshold}/255 = {threshold / 255:.4f}"
    )
    figures = {"share": round(share, 5), "threshold": threshold}
    yield Finding("matte_noise", "warning", evidence.matte_name, message, "threshold", figures)


def _at_most(level: int) -> str:
    return "0" if level == 0 else f"{level} or less"


def _extremes(evidence: Evidence) -> tuple[int, int]:
    levels = np.flatnonzero(evidence.alpha_counts)
    return int(levels[0]), int(levels[-1])


def _border_and_inside(alpha: np.ndarray) -> tuple[float, float]:
    """Mean alpha of the frame's outermost line and of its middle half, [0, 1], over small maps (T, h, w)."""
    height, width = alpha.shape[1:]
    lines = (alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1])
    border = np.concatenate([line.reshape(-1) for line in lines])
    middle = alpha[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    return float(border.mean() / 255), float(middle.mean() / 255) if middle.size else 1.0


def _texture(samples: list[np.ndarray]) -> tuple[float, float]:
    """Mean step between neighbouring pixels where alpha is opaque, and where it is clear; levels."""
    totals, sizes = [0.0, 0.0], [0, 0]
    for frame in samples:
        steps = np.abs(np.diff(frame[..., 1].astype(np.int16), axis=1))
        pairs = frame[:, :-1, 3], frame[:, 1:, 3]
        shown = (pairs[0] >= 250) & (pairs[1] >= 250)
        hidden = (pairs[0] <= 5) & (pairs[1] <= 5)
        for place, mask in enumerate((shown, hidden)):
            totals[place] += float(steps[mask].sum())
            sizes[place] += int(mask.sum())
    return totals[0] / max(sizes[0], 1), totals[1] / max(sizes[1], 1)


def _far_counts(alpha: np.ndarray) -> np.ndarray:
    """Levels of alpha, (256,), in blocks that are far from everything that is clearly there."""
    height, width = (side // _BLOCK * _BLOCK for side in alpha.shape)
    if not height or not width:
        return np.zeros(256, np.int64)
    blocks = alpha[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    near = np.pad(blocks.max(axis=(1, 3)) >= _SUBJECT, 1)
    rows, columns = near.shape[0] - 2, near.shape[1] - 2
    shifted = [near[y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    far = ~np.logical_or.reduce(shifted)
    return np.bincount(blocks.transpose(0, 2, 1, 3)[far].reshape(-1), minlength=256)


CHECKS = (colour_matte, all_clear, all_opaque, flat_matte, clear_frames, limited_range, inverted)
# These ask where the subject's edges are: they make sense of a matte only that passed those above.
EDGE_CHECKS = (matte_noise,)
