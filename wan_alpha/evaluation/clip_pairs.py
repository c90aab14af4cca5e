"""What ``wan-alpha evaluate`` is pointed at: files, folders and dataset lists as clips, and each clip's reference."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wan_alpha.data.clips import ClipInfo, describe_clip
from wan_alpha.data.discover import discover_sources
from wan_alpha.data.manifest import Row, find_manifest, parse_row, read_manifest
from wan_alpha.errors import DataError
from wan_alpha.evaluation.generated_clips import MASTER, generated_row, made_from, read_settings
from wan_alpha.media.stills import IMAGE_SUFFIXES

MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".json"})
# Rates that differ by less are the same one, written down differently (23.98 and 24000/1001).
SAME_RATE = 0.005
# Seconds in which these formats count how long a frame is shown: a rate is known to half of that.
TIME_UNITS = {".gif": 0.01, ".webp": 0.001, ".apng": 0.001, ".png": 0.001}
_FRAME_NAME = re.compile(r"(frame)?[-_ ]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class NamedClip:
    """A clip and what it is called: its path below what was given, without suffix and `_rgb`.

    `prompt`, `seed`: what `generate` made it from; None for all other clips.
    """

    name: str
    row: Row
    prompt: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ClipPair:
    """A clip that is judged, its reference (None without one), and its size and length."""

    name: str
    pred: Row
    reference: Row | None
    info: ClipInfo


def find_clips(path) -> list[NamedClip]:
    """The clips of a file (video, still, animation, `X_rgb.*` with its `X_alpha.*`), a folder of frames, a dataset list
    (.csv, .jsonl, .json), or a folder of any of these; of a folder that `generate` wrote, each clip's frames.

    Raises:
        DataError: nothing is there, a folder is empty, or a clip in it cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir():
        return _clips_of_folder(path)
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return _clips_of_manifest(path)
    row = parse_row(1, {"video": str(path)})
    return [NamedClip(path.stem.removesuffix("_rgb"), row)]


def _clips_of_folder(folder):
    if own := _generated_clip(folder):
        return [own]
    if frames := _frames_folder(folder):
        return [NamedClip(folder.name, Row(1, frames))]
    if manifest := find_manifest(folder):
        return _clips_of_manifest(manifest)
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    generated = [_generated_clip(path, index) or _clip_of_frames(path, index) for index, path in enumerate(below, 1)]
    if any(generated):
        return list(filter(None, generated))
    clips = []
    for index, source in enumerate(discover_sources(folder), 1):
        if source.problem is not None:
            raise DataError(f"{source.foreground}: {source.problem}")
        clips.append(NamedClip(source.name, Row(index, source.foreground, source.matte)))
    return clips


def _clip_of_frames(folder, index):
    """A folder whose ``frames`` are numbered images, as `generate` leaves them; None for any other."""
    frames = _frames_folder(folder / MASTER)
    return None if frames is None else NamedClip(folder.name, Row(index, frames))


def _frames_folder(folder):
    """The folder itself, or its ``frames``, where that holds nothing but numbered images; else None."""
    for candidate in (folder, folder / MASTER):
        files = [path for path in candidate.iterdir() if path.name[0] != "."] if candidate.is_dir() else []
        if files and all(p.suffix.lower() in IMAGE_SUFFIXES and _FRAME_NAME.fullmatch(p.stem) for p in files):
            return candidate
    return None


def _generated_clip(folder, index=1):
    """The clip of a folder that `generate` wrote; None for any other."""
    settings = read_settings(folder)
    row = generated_row(folder, settings, index) if settings else None
    return None if row is None else NamedClip(folder.name, row, **made_from(settings))


def _clips_of_manifest(path):
    clips = []
    for row in read_manifest(path):
        file = row.foreground.relative_to(path.parent.absolute())
        name = (file if row.foreground.is_dir() else file.with_suffix("")).as_posix()
        clips.append(NamedClip(name.removesuffix("_rgb"), row))
    return clips


def pair_clips(preds: list[NamedClip], references: list[NamedClip] | None) -> list[ClipPair]:
    """Give every clip its reference: the one there is, or the one that `find_reference` finds.

    Args:
        references: None to judge without.

    Raises:
        DataError: a name occurs twice, a clip has no reference, or one of the two has no alpha, or they differ in
            prompt, size, frame count or frame rate.
    """
    twice = [name for name, count in Counter(clip.name for clip in preds).items() if count > 1]
    if twice:
        raise DataError(f"two clips to be judged are called {twice[0]}: give their files different names")
    if references is None:
        return [ClipPair(clip.name, clip.row, None, describe_clip(clip.row)) for clip in preds]
    if len(preds) == len(references) == 1:
        return [_checked(preds[0], references[0])]
    prompts = Counter(clip.prompt for clip in preds)
    pairs = []
    for clip in preds:
        reference = find_reference(clip, references, is_alone=prompts[clip.prompt] == 1)
        if reference is None:
            raise DataError(f"{clip.row.foreground}: {_why_none(clip, references)}")
        pairs.append(_checked(clip, reference))
    return pairs


def find_reference(clip: NamedClip, references: list[NamedClip], is_alone: bool = True) -> NamedClip | None:
    """The clip's reference, None where there is none or no telling which.

    Clips that `generate` made belong together by prompt and seed; of the same prompt with other seeds, those of one
    name, else the only one. All others belong together by name, else by the last part of their names.

    Args:
        is_alone: no other clip that is judged has this prompt.
    """
    if clip.prompt is not None and all(other.prompt is not None for other in references):
        alike = [other for other in references if other.prompt == clip.prompt]
        for same in (lambda other: other.seed == clip.seed, lambda other: other.name == clip.name):
            if found := [other for other in alike if same(other)]:
                return found[0]
        return alike[0] if is_alone and len(alike) == 1 else None
    by_name = {other.name: other for other in references}
    last = PurePosixPath(clip.name).name
    by_file = [other for name, other in by_name.items() if PurePosixPath(name).name == last]
    return by_name.get(clip.name) or (by_file[0] if len(by_file) == 1 else None)


def _why_none(clip, references):
    if clip.prompt is None or any(other.prompt is None for other in references):
        names = sorted({other.name for other in references})
        return f"no reference is called {clip.name}; there are {', '.join(names[:5])}{', ...' * (len(names) > 5)}"
    seeds = [str(other.seed) for other in references if other.prompt == clip.prompt]
    if not seeds:
        return f"no reference was made from its prompt, {clip.prompt!r}"
    return f"no reference of its prompt has its seed, {clip.seed}; their seeds are {', '.join(seeds)}"


def unused_references(pairs: list[ClipPair], references: list[NamedClip]) -> list[str]:
    """Names of the references that no clip was compared with."""
    used = {id(pair.reference) for pair in pairs}
    return [clip.name for clip in references if id(clip.row) not in used]


def _checked(pred, reference):
    mine, other = describe_clip(pred.row), describe_clip(reference.row)
    names = f"{pred.row.foreground} and its reference {reference.row.foreground}"
    if None not in (pred.prompt, reference.prompt) and pred.prompt != reference.prompt:
        # Said of the folders that generate wrote; their frames given by themselves are compared whatever they show.
        raise DataError(
            f"{names} were made from different prompts: {pred.prompt!r} and {reference.prompt!r}; to compare them all "
            "the same, give the two folders of frames themselves"
        )
    if (mine.width, mine.height) != (other.width, other.height):
        raise DataError(f"{names} differ in size: {mine.width}x{mine.height} and {other.width}x{other.height}")
    if mine.num_frames != other.num_frames:
        raise DataError(f"{names} differ in length: {mine.num_frames} and {other.num_frames} frames")
    # 0 where a file names no rate: stills and folders of frames.
    if mine.fps and other.fps and not _same_rate(mine.fps, other.fps, (pred.row, reference.row)):
        raise DataError(f"{names} differ in frame rate: {mine.fps:g} and {other.fps:g} frames per second")
    return ClipPair(pred.name, pred.row, reference.row, mine)


def _same_rate(mine, other, rows):
    rounding = max(TIME_UNITS.get(row.foreground.suffix.lower(), 0.0) for row in rows) / 2
    return abs(mine - other) <= SAME_RATE * other or abs(1 / mine - 1 / other) <= rounding * (1 + 1e-6)
