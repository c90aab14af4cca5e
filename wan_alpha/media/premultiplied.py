"""Premultiplied frames made straight, without fringes, and the verdict which of the two a clip is."""

from dataclasses import dataclass

import numpy as np

SOURCE_STATES = ("straight", "premultiplied", "auto")


@dataclass(frozen=True)
class StateVerdict:
    """Whether frames are straight or premultiplied, and why.

    Attributes:
        state: "straight", "premultiplied", or "unknown" where too little is semi-transparent to tell.
        evidence: one sentence with the figures.
        num_semi: semi-transparent pixels that were looked at.
        share_above_alpha: part of them whose colour is brighter than their alpha, which premultiplied colour cannot be.
    """

    state: str
    evidence: str
    num_semi: int
    share_above_alpha: float


def unpremultiply(frame: np.ndarray) -> np.ndarray:
    """Premultiplied RGBA -> straight RGBA of the same type.

    F is the colour nearest to that of the opaque surroundings which the stored value allows:

        (P - 1/2) / a <= F <= (P + 1/2) / a,        P = a*F (Porter & Duff 1984), rounded to whole levels

    Under zero alpha this is the surroundings' colour itself (bled outwards), so that no filter finds a dark fringe.
    Premultiplying again gives P back.

    Args:
        frame: (H, W, 4) uint8 or uint16, premultiplied.
    """
    raise NotImplementedError


def premultiply(frame: np.ndarray) -> np.ndarray:
    """Straight RGBA (..., 4) uint8 or uint16 -> premultiplied RGBA of the same type, rounded."""
    raise NotImplementedError


def judge_state(frames) -> StateVerdict:
    """Tell straight from premultiplied frames.

    Args:
        frames: iterable of (H, W, 4) RGBA frames, uint8 or uint16, as stored.
    """
    raise NotImplementedError
