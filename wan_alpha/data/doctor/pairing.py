"""The matte of a clip that lost it: beside it or in a sister folder, under one of the names that mattes have."""

import re
from pathlib import Path

from wan_alpha.data.discover import VIDEO_SUFFIXES
from wan_alpha.errors import DataError
from wan_alpha.media.probe import probe
from wan_alpha.media.stills import IMAGE_SUFFIXES

_MATTE_WORDS = ("alpha", "matte", "pha", "mask", "a")
_COLOUR_WORDS = ("rgb", "fgr", "fg", "foreground", "color", "colour")
_WORD_AT_END = re.compile(rf"[-_. ]?({'|'.join(_COLOUR_WORDS + _MATTE_WORDS)})$", re.IGNORECASE)


def find_lost_matte(foreground: Path, root) -> Path | None:
    """The one file that can be the matte of `foreground`: its name but for the word, its size, its length.

    Args:
        foreground: the colour file; root: the dataset's folder, which is not left.

    Returns:
        the matte, or None where there is none or several could be meant.
    """
    folder, stem = foreground.parent, _bare(foreground.stem)
    places = [folder, *(folder.parent / word for word in _MATTE_WORDS), *(folder / word for word in _MATTE_WORDS)]
    found = []
    for place in dict.fromkeys(places):
        if not place.is_dir() or not place.resolve().is_relative_to(Path(root).resolve()):
            continue
        for path in sorted(place.iterdir()):
            is_media = path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
            named = _bare(path.stem).lower() == stem.lower() and (place != folder or _is_matte_name(path.stem))
            if is_media and named and path != foreground and _fits(foreground, path):
                found.append(path)
    return found[0] if len(found) == 1 else None


def _bare(stem: str) -> str:
    return _WORD_AT_END.sub("", stem)


def _is_matte_name(stem: str) -> bool:
    word = _WORD_AT_END.search(stem)
    return word is not None and word.group(1).lower() in _MATTE_WORDS


def _fits(foreground: Path, matte: Path) -> bool:
    try:
        one, other = probe(foreground), probe(matte)
    except DataError:
        return False
    return (one.width, one.height, one.num_frames) == (other.width, other.height, other.num_frames)
