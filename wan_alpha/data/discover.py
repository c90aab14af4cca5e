"""Find the clips in a folder that nobody has described yet."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wan_alpha.data.captions import join_captions
from wan_alpha.data.manifest import BadRow, find_manifest, find_matte_beside, read_rows
from wan_alpha.errors import DataError
from wan_alpha.media.missing import no_such
from wan_alpha.media.stills import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".ts", ".ogv", ".nut"}
)
# Colour and matte in folders of their own: VideoMatte240K has the first, image matting sets the others.
SPLIT_LAYOUTS = (("fgr", "pha"), ("fg", "alpha"), ("rgb", "alpha"), ("foreground", "alpha"))

# Keys of a caption in a .json file beside a clip, in this order.
CAPTION_KEYS = ("prompt", "caption", "text", "description")

_FRAME_NAME = re.compile(r"(frame)?[-_ ]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One clip as found. `name` is its path without suffix and `_rgb`; `problem` says why it cannot be used; `prompt`
    holds its captions as one text, see captions.join_captions.

    `kind`, `packing`, `source_state` and `matte_range` are what a manifest's row says; see manifest.Row.
    """

    name: str
    foreground: Path
    matte: Path | None = None
    prompt: str = ""
    problem: str | None = None
    kind: str = "video"
    packing: str = "none"
    source_state: str = "straight"
    matte_range: str = "auto"


def discover_sources(source, caption_column: str | None = None) -> list[Source]:
    """List the clips of a folder, sorted by path, or those that a manifest names, in its order.

    A folder with a metadata.csv (.jsonl, .json) is read by it. Otherwise, at any depth: `X_rgb.*` beside `X_alpha.*`;
    folders `fgr/` and `pha/` (or `fg/`, `rgb/`, `foreground/` and `alpha/`) with equal names inside; single RGBA files
    and stills. A subfolder that holds only numbered images (00000.png or frame_1.png) is one clip. `X.txt` or `X.json`
    beside a file, or beside the two folders, is its caption; several lines, or a list in the JSON, are several captions
    (an indented line goes on with the one before it).

    Args:
        source: folder, or manifest.
        caption_column: column of the manifest, or key of the .json files, that holds captions; None = prompt, or the
            first of CAPTION_KEYS in a .json file.

    Raises:
        DataError: no such folder, no media in it, or a manifest that cannot be read.
    """
    source = Path(source)
    manifest = source if source.is_file() else find_manifest(source)
    if manifest is not None:
        return _from_manifest(manifest, caption_column)
    if not source.is_dir():
        raise DataError(no_such(source, "folder or manifest"))
    sources = list(_walk(source, source, (CAPTION_KEYS if caption_column is None else (caption_column,)), set()))
    if not sources:
        raise DataError(f"{source}: holds no media; videos end in {', '.join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))}")
    return sorted(sources, key=lambda found: found.foreground)


def _from_manifest(manifest: Path, caption_column: str | None) -> list[Source]:
    sources = []
    for row in read_rows(manifest, caption_column=caption_column or "prompt"):
        if isinstance(row, BadRow):
            name = row.names[0] if row.names else f"row {row.index}"
            sources.append(Source(name, manifest.parent / name.replace("\0", "?"), problem=row.reason))
        else:
            path = row.foreground
            name = path.relative_to(os.path.abspath(manifest.parent)).with_suffix("").as_posix().removesuffix("_rgb")
            reading = (row.kind, row.packing, row.source_state, row.matte_range)
            sources.append(Source(name, path, row.matte, join_captions(row.captions), None, *reading))
    return sources


def _walk(root: Path, folder: Path, keys: tuple[str, ...], visited: set[Path]) -> Iterator[Source]:
    """The sources in `folder` and below. `visited`: folders seen so far, links resolved, so that no loop is walked."""
    if folder.resolve() in visited:
        return
    visited.add(folder.resolve())
    layout = next((pair for pair in SPLIT_LAYOUTS if all((folder / name).is_dir() for name in pair)), ())
    if layout:
        yield from _from_split_folders(root, folder, *layout, keys)
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.name not in layout]
    subfolders = [path for path in entries if path.is_dir() and not _is_frame_folder(path)]
    media = [path for path in entries if _is_media(path)]
    yield from _from_files(root, media, keys)
    for path in subfolders:
        yield from _walk(root, path, keys, visited)


def _from_split_folders(
    root: Path, folder: Path, colour_name: str, matte_name: str, keys: tuple[str, ...]
) -> Iterator[Source]:
    two = folder / colour_name, folder / matte_name
    if folder != root and all(_is_frame_folder(part) for part in two):
        # shot/rgb/0001.png, shot/alpha/0001.png: the frames of one clip.
        name = folder.relative_to(root).as_posix()
        yield _with_caption(name, *two, None, [folder / name, root / name], keys)
        return
    colours, mattes = (_by_name(part) for part in two)
    for name in sorted(colours.keys() | mattes.keys()):
        here, there = colours.get(name, []), mattes.get(name, [])
        if not here:
            problem = f"a matte without its clip {colour_name}/{name}.*"
        elif not there:
            problem = f"no matte {matte_name}/{name}.* for it"
        elif len(here) + len(there) > 2:
            problem = "several files could be meant: " + ", ".join(path.name for path in here + there)
        else:
            problem = None
        matte = there[0] if here and there else None
        full_name = (folder / name).relative_to(root).as_posix()
        yield _with_caption(full_name, (here or there)[0], matte, problem, [two[0] / name, folder / name], keys)


def _by_name(folder: Path) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in _iter_media(folder, set()):
        found[_name_below(folder, path)].append(path)
    return found


def _from_files(root: Path, media: list[Path], keys: tuple[str, ...]) -> Iterator[Source]:
    """The sources among the media files and frame folders of one folder."""
    mattes = set()
    for path in (p for p in media if p.stem.endswith("_rgb")):
        name = _name_below(root, path).removesuffix("_rgb")
        matte, problem = None, None
        try:
            matte = find_matte_beside(path)
            if matte is None:
                problem = f"no {Path(name).name}_alpha.* beside it"
        except DataError as error:
            problem = str(error)
        mattes.update([matte] if matte else [p for p in media if p.stem == f"{path.stem[:-4]}_alpha"])
        yield _with_caption(name, path, matte, problem, [root / name, path.with_suffix("")], keys)
    for path in (p for p in media if not p.stem.endswith("_rgb") and p not in mattes):
        name = _name_below(root, path)
        lonely = path.stem.endswith("_alpha")
        problem = f"a matte without its {path.stem.removesuffix('_alpha')}_rgb.*" if lonely else None
        yield _with_caption(name, path, None, problem, [root / name], keys)


def _iter_media(folder: Path, visited: set[Path]) -> Iterator[Path]:
    if folder.resolve() in visited:
        return
    visited.add(folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if _is_media(path):
            yield path
        elif path.is_dir():
            yield from _iter_media(path, visited)


def _is_media(path: Path) -> bool:
    return _is_frame_folder(path) if path.is_dir() else path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _is_frame_folder(folder: Path) -> bool:
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return len(files) > 1 and all(p.suffix.lower() in IMAGE_SUFFIXES and _FRAME_NAME.fullmatch(p.stem) for p in files)


def _name_below(folder: Path, path: Path) -> str:
    relative = path.relative_to(folder)
    return (relative if path.is_dir() else relative.with_suffix("")).as_posix()


def _with_caption(
    name: str, foreground: Path, matte: Path | None, problem: str | None, stems: list[Path], keys: tuple[str, ...]
) -> Source:
    """The source with the caption from the first text or JSON file named as one of `stems`."""
    beside = (stem.with_name(stem.name + suffix) for stem in stems for suffix in (".txt", ".json"))
    caption = next((path for path in beside if path.is_file()), None)
    prompt = ""
    if caption is not None:
        try:
            prompt = _read_caption(caption, keys)
        except DataError as error:
            problem = problem or str(error)
    return Source(name, foreground, matte, prompt, problem)


def _read_caption(path: Path, keys: tuple[str, ...]) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            text = json.loads(text)
    except UnicodeDecodeError as error:
        raise DataError(f"the caption {path.name} is not UTF-8 text ({error})") from error
    except json.JSONDecodeError as error:
        raise DataError(f"the caption {path.name} is not valid JSON ({error})") from error
    if isinstance(text, dict) and {"frames", "meta"} <= text.keys():
        raise DataError(f"{path.name} lists the frames of a sprite sheet; a sheet is no clip, give its frames as files")
    if isinstance(text, dict):
        text = next((text[key] for key in keys if key in text), None)
    # An indented line goes on with the one before it.
    lines = re.split(r"\n(?![ \t])", text) if path.suffix == ".txt" else text if isinstance(text, list) else [text]
    if not all(isinstance(line, str) for line in lines):
        raise DataError(f"the caption {path.name} holds no text under {' or '.join(keys)}")
    captions = [" ".join(line.split()) for line in lines]
    return join_captions(list(dict.fromkeys(caption for caption in captions if caption)))
