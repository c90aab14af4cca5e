"""Find the clips in a folder that nobody has described yet."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wan_alpha.data.manifest import find_matte_beside
from wan_alpha.errors import DataError
from wan_alpha.media.stills import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".ts", ".ogv", ".nut"}
)
# Colour and matte in folders of their own: VideoMatte240K has the first, image matting sets the others.
SPLIT_LAYOUTS = (("fgr", "pha"), ("fg", "alpha"), ("rgb", "alpha"), ("foreground", "alpha"))

_FRAME_NAME = re.compile(r"(frame)?[-_ ]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One clip as found. `name` is its path without suffix and `_rgb`; `problem` says why it cannot be used."""

    name: str
    foreground: Path
    matte: Path | None = None
    prompt: str = ""
    problem: str | None = None


def discover_sources(folder) -> list[Source]:
    """List a folder's clips, sorted by path.

    Known layouts: `X_rgb.*` beside `X_alpha.*`; folders `fgr/` and `pha/` (or `fg/`, `rgb/`, `foreground/` and
    `alpha/`) with equal names inside; single RGBA files and stills. A subfolder that holds only numbered images
    (00000.png or frame_1.png) is one clip. `X.txt` beside a file, or beside the two folders' files, is its caption.

    Raises:
        DataError: not a folder, or no media in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    layout = next((pair for pair in SPLIT_LAYOUTS if all((folder / name).is_dir() for name in pair)), None)
    sources = _from_split_folders(folder, *layout) if layout else _from_tree(folder)
    if not sources:
        raise DataError(f"{folder}: holds no media; videos end in {', '.join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))}")
    return sources


def _from_split_folders(folder: Path, colour_name: str, matte_name: str) -> list[Source]:
    colours, mattes = _by_name(folder / colour_name), _by_name(folder / matte_name)
    sources = []
    for name in sorted(colours.keys() | mattes.keys()):
        here, there = colours.get(name, []), mattes.get(name, [])
        captions = [folder / colour_name / f"{name}.txt", folder / f"{name}.txt"]
        if not here:
            problem = f"a matte without its clip {colour_name}/{name}.*"
        elif not there:
            problem = f"no matte {matte_name}/{name}.* for it"
        elif len(here) + len(there) > 2:
            problem = "several files could be meant: " + ", ".join(path.name for path in here + there)
        else:
            problem = None
        matte = there[0] if here and there else None
        sources.append(_with_caption(name, (here or there)[0], matte, problem, captions))
    return sources


def _by_name(folder: Path) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in _iter_media(folder):
        found[_name_below(folder, path)].append(path)
    return found


def _from_tree(folder: Path) -> list[Source]:
    media = list(_iter_media(folder))
    mattes = set()
    sources = []
    for path in (p for p in media if p.stem.endswith("_rgb")):
        name = _name_below(folder, path).removesuffix("_rgb")
        matte, problem = None, None
        try:
            matte = find_matte_beside(path)
            if matte is None:
                problem = f"no {Path(name).name}_alpha.* beside it"
        except DataError as error:
            problem = str(error)
        mattes.update(
            [matte] if matte else [p for p in media if p.parent == path.parent and p.stem == f"{path.stem[:-4]}_alpha"]
        )
        sources.append(_with_caption(name, path, matte, problem, [folder / f"{name}.txt", path.with_suffix(".txt")]))
    for path in (p for p in media if not p.stem.endswith("_rgb") and p not in mattes):
        name = _name_below(folder, path)
        lonely = path.stem.endswith("_alpha")
        problem = f"a matte without its {path.stem.removesuffix('_alpha')}_rgb.*" if lonely else None
        sources.append(_with_caption(name, path, None, problem, [folder / f"{name}.txt"]))
    return sorted(sources, key=lambda source: source.foreground)


def _iter_media(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if _is_frame_folder(path):
                yield path
            else:
                yield from _iter_media(path)
        elif path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            yield path


def _is_frame_folder(folder: Path) -> bool:
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return len(files) > 1 and all(p.suffix.lower() in IMAGE_SUFFIXES and _FRAME_NAME.fullmatch(p.stem) for p in files)


def _name_below(folder: Path, path: Path) -> str:
    relative = path.relative_to(folder)
    return (relative if path.is_dir() else relative.with_suffix("")).as_posix()


def _with_caption(name: str, foreground: Path, matte: Path | None, problem: str | None, captions: list[Path]) -> Source:
    prompt = ""
    caption = next((path for path in captions if path.is_file()), None)
    if caption is not None:
        try:
            prompt = " ".join(caption.read_text(encoding="utf-8-sig").split())
        except UnicodeDecodeError as error:
            problem = problem or f"the caption {caption.name} is not UTF-8 text ({error})"
    return Source(name, foreground, matte, prompt, problem)
