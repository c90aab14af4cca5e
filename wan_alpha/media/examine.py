"""What decoding shows of a clip's alpha: whether it is there at all, how much of it, and the state of the colour."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from wan_alpha.media.alpha_source import AlphaSource, describe_source, iter_source_indices, matte_levels
from wan_alpha.media.probe import MediaInfo, probe
from wan_alpha.media.read import iter_indices
from wan_alpha.media.sprite_sheet import sheet_warning
from wan_alpha.media.state_verdict import StateVerdict, judge_state


@dataclass(frozen=True)
class Examination:
    """Findings over the frames that were looked at.

    Attributes:
        info: the clip as probed.
        num_examined: frames that were decoded.
        alpha_counts: pixels of each alpha level, 256 numbers.
        alpha_survives: alpha decodes to something else than 255 everywhere; None where there is no alpha.
        state: straight or premultiplied, with evidence.
        warnings: what a user should know, one sentence each.
    """

    info: MediaInfo
    num_examined: int
    alpha_counts: tuple[int, ...]
    alpha_survives: bool | None
    state: StateVerdict
    warnings: tuple[str, ...] = ()

    @property
    def shares(self) -> dict[str, float]:
        """{"clear", "semi", "opaque"}: parts of all pixels, [0, 1]."""
        total = max(sum(self.alpha_counts), 1)
        clear, opaque = self.alpha_counts[0] / total, self.alpha_counts[255] / total
        return {"clear": clear, "semi": max(1.0 - clear - opaque, 0.0), "opaque": opaque}

    @property
    def alpha_range(self) -> tuple[int, int]:
        """Lowest and highest alpha level that occurs."""
        levels = [level for level, count in enumerate(self.alpha_counts) if count]
        return levels[0], levels[-1]

    def as_dict(self) -> dict:
        """Everything as plain JSON values."""
        info = self.info
        names = (
            "codec", "width", "height", "fps", "num_frames", "duration", "pix_fmt", "bit_depth", "color_range",
            "color_matrix", "rotation", "is_variable_rate", "has_alpha", "decoder",
        )  # fmt: skip
        alpha = {
            "survives_decoding": self.alpha_survives,
            "range": self.alpha_range,
            "levels": sum(1 for count in self.alpha_counts if count),
            "shares": self.shares,
            "histogram": self.alpha_counts,
        }
        state = {
            "verdict": self.state.state,
            "evidence": self.state.evidence,
            "num_semi_pixels": self.state.num_semi,
            "share_above_alpha": self.state.share_above_alpha,
            "straight_error": self.state.straight_error,
            "premultiplied_error": self.state.premultiplied_error,
        }
        return {
            "file": str(info.path), **{name: getattr(info, name) for name in names},
            "num_examined": self.num_examined, "alpha": alpha, "state": state, "warnings": list(self.warnings),
        }  # fmt: skip


def examine(
    source: AlphaSource, max_frames: int | None = 16, progress: Callable[[int], None] | None = None
) -> Examination:
    """Decode frames spread evenly over a clip and report on their alpha.

    Args:
        source: files to look at; `source_state` is not applied, the frames are judged as stored.
        max_frames: how many frames at most; None for all.
        progress: called with the number of frames done, after each.

    Raises:
        DataError: as iter_source; a single file without an alpha plane is no error here.
    """
    is_single = source.matte is None and source.packing == "none"
    info = probe(source.foreground) if is_single else describe_source(source)
    count = info.num_frames if max_frames is None else min(max_frames, info.num_frames)
    indices = sorted({round(place) for place in np.linspace(0, info.num_frames - 1, count)})
    stored = AlphaSource(source.foreground, source.matte, source.packing, "straight", source.matte_range)
    frames = iter_indices(source.foreground, indices) if is_single else iter_source_indices(stored, indices)
    counts = np.zeros(256, np.int64)
    state = judge_state(_counted(frames, counts, progress))
    if not info.has_alpha:
        state = StateVerdict("straight", "the file has no alpha")
    survives = bool(counts[:255].any()) if info.has_alpha else None
    alpha_counts = tuple(int(number) for number in counts)
    warnings = tuple(_warnings(source, info, alpha_counts, survives, state))
    return Examination(info, len(indices), alpha_counts, survives, state, warnings)


def _counted(frames: Iterator[np.ndarray], counts: np.ndarray, progress) -> Iterator[np.ndarray]:
    for number, frame in enumerate(frames, 1):
        counts += np.bincount(frame[..., 3].reshape(-1), minlength=256)
        yield frame
        if progress is not None:
            progress(number)


def _warnings(
    source: AlphaSource, info: MediaInfo, counts: tuple[int, ...], survives: bool | None, state: StateVerdict
) -> Iterator[str]:
    if warning := sheet_warning(info.path):
        yield warning
    if survives is None:
        yield "no alpha: neither an alpha plane nor a matte"
    elif not survives:
        yield "alpha is 255 in every pixel that was looked at: nothing is transparent, or alpha was lost on the way"
    elif not any(counts[1:]):
        yield "alpha is 0 in every pixel that was looked at: there is nothing to see"
    if state.state == "premultiplied" and source.source_state == "straight":
        yield "colour is premultiplied: read it with source_state = premultiplied, or dark fringes come with it"
    if state.state == "straight" and source.source_state == "premultiplied":
        yield "colour is straight, though it was said to be premultiplied"
    if matte_levels(source) == "limited":
        yield "the matte's levels are 16 to 235; they are expanded to 0 to 255"
    if info.is_variable_rate:
        yield "the frame rate varies: frames are taken by their times where a rate is asked for"
    if info.rotation:
        yield f"a rotation tag of {info.rotation} degrees is applied"
    if info.width % 2 or info.height % 2:
        yield f"odd size {info.width}x{info.height}: formats with 4:2:0 colour cannot hold it"
