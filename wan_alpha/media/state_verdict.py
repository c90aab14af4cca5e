"""Straight or premultiplied: what the frames of a clip say, and on what evidence."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wan_alpha.media.bleed import bleed_outwards

# Semi-transparent pixels below which nothing is concluded.
_ENOUGH = 64
# Rounding and lossy codecs let premultiplied colour exceed its alpha by this much, part of full scale.
_TOLERANCE = 8 / 255
# Part of semi-transparent pixels that may exceed it nevertheless (ringing of codecs at edges).
_MAX_SHARE = 0.02
# Chroma of a 4:2:0 video spills over edges: up to this part may exceed it, where premultiplied fits that many times
# better.
_MAX_SPILLED, _FAR_BETTER = 0.10, 4.0
# How much better one explanation must fit than the other.
_CLEARLY = 1.5


@dataclass(frozen=True)
class StateVerdict:
    """Whether frames are straight or premultiplied, and why.

    Attributes:
        state: "straight", "premultiplied", or "unknown": too little is semi-transparent, or it is too dark, to tell.
        evidence: one sentence with the figures.
        num_semi: semi-transparent pixels that were looked at.
        share_above_alpha: part of them with a channel brighter than alpha, which premultiplied colour cannot have.
        straight_error, premultiplied_error: mean distance in levels of 255 of semi-transparent colour from that of the
            opaque pixels around it, taken as straight and taken as premultiplied; None where nothing is opaque.
    """

    state: str
    evidence: str
    num_semi: int = 0
    share_above_alpha: float = 0.0
    straight_error: float | None = None
    premultiplied_error: float | None = None


def judge_state(frames: Iterable[np.ndarray]) -> StateVerdict:
    """Tell straight from premultiplied frames.

    Premultiplied colour never exceeds its alpha: one frame where it often does is straight. Where it does not, the
    colour may simply be dark; then semi-transparent pixels are compared with the opaque ones that they border on: they
    have the same colour in a straight clip, and the same colour times alpha in a premultiplied one.

    Args:
        frames: (H, W, 4) RGBA frames, uint8 or uint16, as stored; one is held at a time.
    """
    num_semi = num_above = num_compared = 0
    straight_sum = premultiplied_sum = 0.0
    for frame in frames:
        top = np.iinfo(frame.dtype).max
        rgba = frame.astype(np.float32) / top
        rgb, alpha = rgba[..., :3], rgba[..., 3]
        semi = (alpha > 0.02) & (alpha < 0.98)
        num_semi += int(semi.sum())
        num_above += int((rgb[semi].max(axis=-1, initial=0.0) > alpha[semi] + _TOLERANCE).sum())
        opaque = alpha >= 0.98
        near = semi & _near(opaque)
        if near.any():
            solid = opaque[..., None].astype(np.float32)
            expected = bleed_outwards(rgb * solid, solid)[near]
            colour, coverage = rgb[near], alpha[near, None]
            straight_sum += float(np.abs(colour - expected).mean(axis=-1).sum())
            premultiplied_sum += float(np.abs(colour - coverage * expected).mean(axis=-1).sum())
            num_compared += int(near.sum())
    if num_semi < _ENOUGH:
        return StateVerdict("unknown", f"only {num_semi} semi-transparent pixels, nothing to tell it by", num_semi)
    share = num_above / num_semi
    errors = (None, None)
    if num_compared:
        errors = (255 * straight_sum / num_compared, 255 * premultiplied_sum / num_compared)
    above = f"{share:.1%} of {num_semi} semi-transparent pixels are brighter than their alpha"
    is_spilled = share < _MAX_SPILLED and num_compared >= _ENOUGH and errors[0] > _FAR_BETTER * errors[1] + 1
    if share > _MAX_SHARE and not is_spilled:
        reason = f"{above}, which premultiplied colour cannot be"
        return StateVerdict("straight", reason, num_semi, share, *errors)
    if num_compared < _ENOUGH:
        reason = f"{above}, but nothing opaque is beside them to compare with"
        return StateVerdict("unknown", reason, num_semi, share, *errors)
    fit = f"{above}; from the opaque colour beside them they are {errors[0]:.1f} levels away, {errors[1]:.1f} from it "
    fit += "times alpha"
    if errors[0] > _CLEARLY * errors[1] + 1:
        return StateVerdict("premultiplied", fit, num_semi, share, *errors)
    if errors[1] > _CLEARLY * errors[0] + 1:
        return StateVerdict("straight", fit, num_semi, share, *errors)
    return StateVerdict("unknown", f"{fit}: too dark or too mixed to tell", num_semi, share, *errors)


def _near(opaque: np.ndarray, reach: int = 4) -> np.ndarray:
    """Pixels that have an opaque one within `reach` rows and columns."""
    near = opaque.copy()
    for _ in range(reach):
        grown = near.copy()
        grown[1:] |= near[:-1]
        grown[:-1] |= near[1:]
        grown[:, 1:] |= near[:, :-1]
        grown[:, :-1] |= near[:, 1:]
        near = grown
    return near
