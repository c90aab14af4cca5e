"""How large and long a source may be, and the reason where it is refused."""

from dataclasses import dataclass

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.probe import MediaInfo

LARGEST_SIDE = 2048  # pixels; `max_side` may be raised so far


@dataclass(frozen=True)
class MediaLimits:
    """What a source must keep to. None switches a limit off.

    Args:
        min_side, max_side: pixels, of either side; `max_side` at most 2048.
        max_seconds: duration; sources without a frame rate have none.
        max_frames: frames.

    Raises:
        ConfigError: a limit that nothing could keep to, or a `max_side` above 2048.
    """

    min_side: int | None = 256
    max_side: int | None = 1024
    max_seconds: float | None = 10.0
    max_frames: int | None = 81

    def __post_init__(self):
        if self.max_side is not None and not 1 <= self.max_side <= LARGEST_SIDE:
            raise ConfigError(f"max_side = {self.max_side} is not from 1 to {LARGEST_SIDE} pixels")
        if None not in (self.min_side, self.max_side) and self.min_side > self.max_side:
            raise ConfigError(f"min_side = {self.min_side} is above max_side = {self.max_side}")
        for name in ("min_side", "max_seconds", "max_frames"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} = {value} must be above 0")


NO_LIMITS = MediaLimits(None, None, None, None)


def refusals(info: MediaInfo, limits: MediaLimits) -> list[str]:
    """Every limit that a file breaks, one reason each; empty where it keeps to all."""
    reasons = []
    sides, size = (info.width, info.height), f"{info.width}x{info.height}"
    if limits.min_side is not None and min(sides) < limits.min_side:
        reasons.append(f"{size} is smaller than {limits.min_side} pixels per side (min_side)")
    if limits.max_side is not None and max(sides) > limits.max_side:
        reasons.append(f"{size} is larger than {limits.max_side} pixels per side (max_side)")
    # Half a frame of tolerance: containers round the duration.
    slack = 0.5 / info.fps if info.fps > 0 else 0.0
    if limits.max_seconds is not None and info.duration > limits.max_seconds + slack:
        reasons.append(f"{info.duration:.2f} s is longer than {limits.max_seconds:g} s (max_seconds)")
    if limits.max_frames is not None and info.num_frames > limits.max_frames:
        reasons.append(f"{info.num_frames} frames are more than {limits.max_frames} (max_frames)")
    return reasons


def check_limits(info: MediaInfo, limits: MediaLimits) -> None:
    """Refuse a file that breaks a limit.

    Raises:
        DataError: with every reason.
    """
    if reasons := refusals(info, limits):
        raise DataError(f"{info.path}: refused: {'; '.join(reasons)}")
