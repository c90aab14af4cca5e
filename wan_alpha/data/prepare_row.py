"""One source of `prepare`: checked frame by frame, written, and remembered for the next run."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from wan_alpha.data.dataset_files import DEFAULT_FPS, place_pair, write_still, write_streams
from wan_alpha.data.discover import Source
from wan_alpha.data.doctor.evidence import fingerprint
from wan_alpha.data.prepare_journal import Part, PreparedRow, read_journal, settings_key, write_journal
from wan_alpha.data.scenes import CutFinder, split_at
from wan_alpha.errors import DataError
from wan_alpha.media.alpha_source import AlphaSource, describe_source, find_source_state, iter_source_indices
from wan_alpha.media.limits import NO_LIMITS, MediaLimits, refusals
from wan_alpha.media.probe import MediaInfo, probe
from wan_alpha.media.stills import is_image_path
from wan_alpha.media.timeline import resample

# A scene of fewer frames is too short to train on: the shortest clip of more than one frame has 4n+1 = 5.
SHORTEST_SCENE = 5


@dataclass(frozen=True)
class PrepareSettings:
    """How sources are read and cut.

    Args:
        source_state: what the colour is: "straight", "premultiplied" (made straight), or "auto" (judged).
        packing: where the matte lies in the frames of opaque files without a matte; one of packed.PACKINGS.
        split_scenes: make a clip of each scene.
        limits: sizes and lengths that are refused.
    """

    source_state: str = "straight"
    packing: str = "none"
    split_scenes: bool = False
    limits: MediaLimits = NO_LIMITS


@dataclass
class _Survey:
    """What a source's frames showed on their way."""

    length: int
    num_frames: int = 0
    lowest: int = 255
    highest: int = 0
    samples: list[np.ndarray] = field(default_factory=list)
    cuts: CutFinder | None = None

    def watch(self, frames: Iterator[np.ndarray], file: Path) -> Iterator[np.ndarray]:
        """Yield the frames; at their end, alpha that never was anything but 0, or 255, is an error."""
        wanted = {round(place) for place in np.linspace(0, self.length - 1, min(3, self.length))}
        for frame in frames:
            self.lowest = min(self.lowest, int(frame[..., 3].min()))
            self.highest = max(self.highest, int(frame[..., 3].max()))
            if self.num_frames in wanted:
                self.samples.append(np.array(frame))
            if self.cuts is not None:
                self.cuts.see(frame)
            self.num_frames += 1
            yield frame
        if self.highest == 0:
            raise DataError(f"{file}: alpha is 0 everywhere, there is nothing to see")
        if self.lowest == 255:
            raise DataError(f"{file}: alpha is 255 everywhere, nothing is transparent; was alpha lost on the way?")


def prepare_row(
    index: int, source: Source, name: str, out_dir: Path, link: bool, settings: PrepareSettings, with_dropped: bool
) -> PreparedRow:
    """Check and write one source.

    Args:
        index: its number, for the journal; name: stem of its files.
        with_dropped: clips that an earlier run dropped as near duplicates need not be written again.

    Raises:
        DataError: it cannot be used, and why.
    """
    if source.problem:
        raise DataError(source.problem)
    key = settings_key(source, link, settings)
    if (kept := read_journal(out_dir, name, key, with_dropped)) is not None:
        return kept
    clip = _resolve(source, settings)
    info = describe_source(clip, compare_lengths=source.kind != "static")
    if source.kind == "static":
        info = replace(info, num_frames=1, duration=0.0)
    if not settings.split_scenes and (reasons := refusals(info, settings.limits)):
        raise DataError(f"{source.foreground}: refused: {'; '.join(reasons)}")
    row = _write(source, clip, info, name, out_dir, link, settings)
    write_journal(out_dir, name, key, row)
    return row


def _resolve(source: Source, settings: PrepareSettings) -> AlphaSource:
    """Where alpha is and what the colour is, both settled: a clip must not change its state between two readings."""
    packing = source.packing
    if packing == "none" and source.matte is None and not probe(source.foreground).has_alpha:
        packing = settings.packing
    state = settings.source_state if source.source_state == "straight" else source.source_state
    clip = AlphaSource(source.foreground, source.matte, packing, state, source.matte_range)
    # Before anything is judged: what does not fit cannot be.
    describe_source(clip, compare_lengths=source.kind != "static")
    settled = "premultiplied" if find_source_state(clip) == "premultiplied" else "straight"
    return replace(clip, source_state=settled)


def _write(
    source: Source, clip: AlphaSource, info: MediaInfo, name: str, out_dir: Path, link: bool, settings: PrepareSettings
) -> PreparedRow:
    fps, file = info.fps or DEFAULT_FPS, source.matte or source.foreground
    is_copied = (
        source.matte is not None and clip.source_state == "straight" and clip.matte_range == "auto"
        and not is_image_path(source.foreground) and not is_image_path(source.matte)
    )  # fmt: skip
    playing = list(range(info.num_frames))
    if not is_copied and info.is_variable_rate and info.timeline is not None:
        # What is written has one rate: frames are repeated or dropped by the time that they are shown.
        playing = resample(info.timeline.times, info.timeline.duration, fps)
    survey = _Survey(len(playing), cuts=CutFinder() if settings.split_scenes else None)
    frames = survey.watch(_iter_playing(clip, playing), file)
    if info.num_frames == 1:
        (frame,) = frames  # to the end, so that alpha is judged before anything is written
        return PreparedRow((Part(write_still(out_dir, name, frame), fingerprint([frame])),))
    if not is_copied and not settings.split_scenes:
        record = write_streams(out_dir, name, frames, fps)
        return PreparedRow((Part(record, fingerprint(survey.samples)),))
    for frame in frames:  # decoding both to the end is the check
        shape = frame.shape
    scenes = split_at(survey.cuts.cuts() if survey.cuts else [], survey.num_frames)
    if len(scenes) > 1 or not is_copied:
        return _write_scenes([playing[slice(*scene)] for scene in scenes], clip, info, name, out_dir, fps, settings)
    if reasons := refusals(info, settings.limits):
        raise DataError(f"{source.foreground}: refused: {'; '.join(reasons)}")
    files = source.foreground, source.matte
    record = place_pair(out_dir, name, files, shape, survey.num_frames, fps, link)
    return PreparedRow((Part(record, fingerprint(survey.samples)),))


def _write_scenes(
    scenes: list[list[int]], clip: AlphaSource, info: MediaInfo, name: str, out_dir: Path, fps: float,
    settings: PrepareSettings,
) -> PreparedRow:  # fmt: skip
    """Each scene, a list of frame numbers, as a clip NAME-1, NAME-2, ...; too short and refused ones are left out."""
    parts, left_out = [], []
    for number, playing in enumerate(scenes, 1):
        length = len(playing)
        where = f"frames {playing[0]} to {playing[-1]}" if len(scenes) > 1 else f"{info.path}"
        reasons = refusals(replace(info, num_frames=length, duration=length / fps), settings.limits)
        if len(scenes) > 1 and length < SHORTEST_SCENE:
            reasons = [f"a scene of {length} frames, fewer than {SHORTEST_SCENE}"]
        survey = _Survey(length)
        try:
            if reasons:
                raise DataError(f"{where}: refused: {'; '.join(reasons)}")
            part_name = f"{name}-{number}" if len(scenes) > 1 else name
            record = write_streams(out_dir, part_name, survey.watch(_iter_playing(clip, playing), Path(where)), fps)
            parts.append(Part(record, fingerprint(survey.samples)))
        except DataError as error:
            left_out.append(str(error))
    if not parts:
        raise DataError("; ".join(left_out))
    return PreparedRow(tuple(parts), tuple(left_out))


def _iter_playing(clip: AlphaSource, playing: list[int]) -> Iterator[np.ndarray]:
    """The frames of these numbers, which never descend and may repeat."""
    times = Counter(playing)
    wanted = sorted(times)
    for index, frame in zip(wanted, iter_source_indices(clip, wanted), strict=True):
        for _ in range(times[index]):
            yield frame
