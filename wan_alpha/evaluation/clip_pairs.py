"""What ``wan-alpha evaluate`` is pointed at: files, folders and dataset lists as clips, and each clip's reference."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wan_alpha.data.clips import ClipInfo, describe_clip
from wan_alpha.data.discover import discover_sources
from wan_alpha.data.manifest import Row, find_manifest, parse_row, read_manifest
from wan_alpha.errors import DataError
from wan_alpha.media.stills import IMAGE_SUFFIXES

MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".json"})
# Rates that differ by less are the same one, written down differently (23.98 and 24000/1001).
SAME_RATE = 0.005
_FRAME_NAME = re.compile(r"(frame)?[-_ ]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class NamedClip:
    """A clip and what it is called: its path below what was given, without suffix and `_rgb`."""

    name: str
    row: Row


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
    if frames := _frames_folder(folder):
        return [NamedClip(folder.name, Row(1, frames))]
    if manifest := find_manifest(folder):
        return _clips_of_manifest(manifest)
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    generated = [(path.name, frames) for path in below if (frames := _frames_folder(path / "frames"))]
    if generated:
        return [NamedClip(name, Row(index, frames)) for index, (name, frames) in enumerate(generated, 1)]
    clips = []
    for index, source in enumerate(discover_sources(folder), 1):
        if source.problem is not None:
            raise DataError(f"{source.foreground}: {source.problem}")
        clips.append(NamedClip(source.name, Row(index, source.foreground, source.matte)))
    return clips


def _frames_folder(folder):
    """The folder itself, or its ``frames``, where that holds nothing but numbered images; else None."""
    for candidate in (folder, folder / "frames"):
        files = [path for path in candidate.iterdir() if path.name[0] != "."] if candidate.is_dir() else []
        if files and all(p.suffix.lower() in IMAGE_SUFFIXES and _FRAME_NAME.fullmatch(p.stem) for p in files):
            return candidate
    return None


def _clips_of_manifest(path):
    clips = []
    for row in read_manifest(path):
        file = row.foreground.relative_to(path.parent.absolute())
        name = (file if row.foreground.is_dir() else file.with_suffix("")).as_posix()
        clips.append(NamedClip(name.removesuffix("_rgb"), row))
    return clips


def pair_clips(preds: list[NamedClip], references: list[NamedClip] | None) -> list[ClipPair]:
    """Give every clip its reference: the one there is, or the one of the same name (else of the same file name).

    Args:
        references: None to judge without.

    Raises:
        DataError: a name occurs twice, a clip has no reference, or one of the two has no alpha, or they differ in size,
            frame count or frame rate.
    """
    twice = [name for name, count in Counter(clip.name for clip in preds).items() if count > 1]
    if twice:
        raise DataError(f"two clips to be judged are called {twice[0]}: give their files different names")
    if references is None:
        return [ClipPair(clip.name, clip.row, None, describe_clip(clip.row)) for clip in preds]
    if len(preds) == len(references) == 1:
        return [_checked(preds[0], references[0])]
    by_name = {clip.name: clip for clip in references}
    by_last = Counter(PurePosixPath(name).name for name in by_name)
    by_file = {PurePosixPath(name).name: clip for name, clip in by_name.items()}
    pairs = []
    for clip in preds:
        last = PurePosixPath(clip.name).name
        reference = by_name.get(clip.name) or (by_file.get(last) if by_last[last] == 1 else None)
        if reference is None:
            there = ", ".join(sorted(by_name)[:5]) + (", ..." if len(by_name) > 5 else "")
            raise DataError(f"{clip.row.foreground}: no reference is called {clip.name}; there are {there}")
        pairs.append(_checked(clip, reference))
    return pairs


def unused_references(pairs: list[ClipPair], references: list[NamedClip]) -> list[str]:
    """Names of the references that no clip was compared with."""
    used = {id(pair.reference) for pair in pairs}
    return [clip.name for clip in references if id(clip.row) not in used]


def _checked(pred, reference):
    mine, other = describe_clip(pred.row), describe_clip(reference.row)
    names = f"{pred.row.foreground} and its reference {reference.row.foreground}"
    if (mine.width, mine.height) != (other.width, other.height):
        raise DataError(f"{names} differ in size: {mine.width}x{mine.height} and {other.width}x{other.height}")
    if mine.num_frames != other.num_frames:
        raise DataError(f"{names} differ in length: {mine.num_frames} and {other.num_frames} frames")
    # 0 where a file names no rate: stills and folders of frames.
    if mine.fps and other.fps and abs(mine.fps - other.fps) > SAME_RATE * other.fps:
        raise DataError(f"{names} differ in frame rate: {mine.fps:g} and {other.fps:g} frames per second")
    return ClipPair(pred.name, pred.row, reference.row, mine)
