"""When each frame of a video is shown, and which frames decoding can start at; known without decoding."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Containers whose timestamps and index ffmpeg seeks by exactly; of others the frames are counted from the start.
_SEEKABLE = {"mov", "matroska"}
# In these a frame that follows a keyframe may need one before it ("open GOP"), and its decoder complains of that.
_NEEDS_CLOSED_GROUPS = {"h264", "mpeg1video", "mpeg2video", "mpeg4"}
_KEY, _DISCARD = 1, 4
_NO_TIME = -(2**63)
# Part of a frame's duration by which a regular frame may be early or late: containers round, cameras jitter.
_JITTER = 0.25


@dataclass(frozen=True, eq=False)
class Timeline:
    """Frames in the order they are shown.

    Attributes:
        times: (N,) float64, seconds by the file's own clock, ascending; it need not start at 0.
        keyframes: ascending frame numbers that decoding can start at; the first is 0.
        can_seek: times are exact and the container is one that ffmpeg seeks by time in.
        last_duration: seconds that the last frame is shown, 0 where the file does not say.
    """

    times: np.ndarray
    keyframes: tuple[int, ...]
    can_seek: bool
    last_duration: float

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return float(self.times[-1] - self.times[0]) + self.last_duration

    def is_variable(self) -> bool:
        """Whether frames are away from an even grid by more than a quarter of its step."""
        if len(self.times) < 3:
            return False
        step = (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        grid = self.times[0] + step * np.arange(len(self.times))
        return bool(np.abs(self.times - grid).max() > _JITTER * step)


def parse_packets(text: str, container: str, codec: str, fps: float) -> Timeline | None:
    """The timeline from what ffmpeg's framecrc lists of a stream's packets; None if it lists none that is shown."""
    base = re.search(r"^#tb 0: (\d+)/(\d+)", text, re.MULTILINE)
    packets = []
    for line in text.splitlines():
        if line.startswith("0,"):
            fields = line.split(",", 5)
            flags = re.search(r", F=0x([0-9A-F]+)", fields[5])
            packets.append((int(fields[2]), int(fields[3]), int(flags.group(1), 16) if flags else _KEY))
    shown = [packet for packet in packets if not packet[2] & _DISCARD]  # an edit list cuts the others off
    if not shown or not base:
        return None
    tick = int(base.group(1)) / int(base.group(2))
    stamps = sorted(packet[0] for packet in shown)
    last_duration = next(packet[1] for packet in shown if packet[0] == stamps[-1]) * tick
    step = 1.0 / fps if fps > 0 else 0.0
    if stamps[0] == _NO_TIME or len(set(stamps)) < len(stamps):
        return Timeline(np.arange(len(stamps)) * step, (0,), False, step)
    number = {stamp: index for index, stamp in enumerate(stamps)}
    # Frames that an edit list cuts off are decoded where a wanted one needs them: their keyframe stands for frame 0.
    keyframes = {0} | {number[stamp] for stamp in _entries(packets, codec) if stamp in number}
    can_seek = container.split(",")[0] in _SEEKABLE
    return Timeline(np.array(stamps) * tick, tuple(sorted(keyframes)), can_seek, last_duration or step)


def resample(times: Sequence[float], duration: float, fps: float) -> list[int]:
    """Frame numbers that play at `fps` what is shown at `times`: for each new frame the one on screen at that moment.

    Args:
        times: seconds, ascending; duration: seconds from times[0] to the end of the last frame.
        fps: frames per second wanted, above 0.

    Returns:
        max(1, round(duration * fps)) numbers, never descending; frames that are shown longer occur repeatedly.
    """
    times = np.asarray(times, np.float64) - times[0]
    moments = np.arange(max(1, round(duration * fps))) / fps
    steps = np.diff(times)
    # Timestamps are rounded: a frame that starts a little after the moment counts as started.
    slack = _JITTER * min(1.0 / fps, float(np.median(steps)) if len(steps) else 1.0 / fps)
    return np.clip(np.searchsorted(times, moments + slack, side="right") - 1, 0, len(times) - 1).tolist()


def _entries(packets: list[tuple[int, int, int]], codec: str) -> list[int]:
    """Timestamps of the keyframes that decoding can start at without a complaint, packets in decoding order."""
    keys, earliest = [], float("inf")
    for stamp, _, flags in reversed(packets):
        if flags & _KEY and (codec not in _NEEDS_CLOSED_GROUPS or stamp <= earliest):
            keys.append(stamp)
        earliest = min(earliest, stamp)
    return keys
