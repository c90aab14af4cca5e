"""What decoding shows of a clip's alpha: whether it is there at all, how much of it, and in which state the colour is."""

from dataclasses import dataclass

from wan_alpha.media.alpha_source import AlphaSource
from wan_alpha.media.state_verdict import StateVerdict
from wan_alpha.media.probe import MediaInfo


@dataclass(frozen=True)
class Examination:
    """Findings over the frames that were looked at.

    Attributes:
        info: the clip as probed.
        num_examined: frames that were decoded.
        alpha_counts: pixels of each alpha level, 256 numbers.
        alpha_survives: alpha decodes to something else than 255 everywhere; None where the file has no alpha plane.
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
        return {"clear": clear, "semi": 1.0 - clear - opaque, "opaque": opaque}

    @property
    def alpha_range(self) -> tuple[int, int]:
        """Lowest and highest alpha level that occurs."""
        levels = [level for level, count in enumerate(self.alpha_counts) if count]
        return levels[0], levels[-1]

    def as_dict(self) -> dict:
        """Everything as plain JSON values."""
        raise NotImplementedError


def examine(source: AlphaSource, max_frames: int | None = 16) -> Examination:
    """Decode frames spread evenly over a clip and report on their alpha.

    Args:
        source: files to look at; `source_state` is not applied, the frames are judged as stored.
        max_frames: how many frames at most; None for all.

    Raises:
        DataError: as iter_source; a single file without an alpha plane is no error here.
    """
    raise NotImplementedError
