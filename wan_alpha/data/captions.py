"""Several captions of one clip; which of them a sample takes, sampling.choose_caption says."""

import json
import re
from collections.abc import Sequence

_NUMBERED = re.compile(r"prompt_(\d+)")


def read_captions(record: dict) -> tuple[str, ...]:
    """The captions of a manifest's record, each once, in order; ("",) where there is none.

    The column `prompt` holds a caption, or a JSON list of captions; `prompt_2`, `prompt_3` and so on hold more.

    Args:
        record: column -> value.
    """
    numbered = sorted((int(match[1]), column) for column in record if (match := _NUMBERED.fullmatch(str(column))))
    found = []
    for column in ("prompt", *(column for _, column in numbered)):
        found += _texts(record.get(column))
    return tuple(dict.fromkeys(text for text in found if text)) or ("",)


def _texts(value):
    if isinstance(value, list):
        return [str(text).strip() for text in value]
    # pandas turns an empty cell into NaN, the one value that differs from itself.
    text = "" if value is None or value != value else str(value).strip()
    if text.startswith("["):
        try:
            values = json.loads(text)
        except json.JSONDecodeError:
            return [text]  # a caption that begins with a bracket
        if isinstance(values, list) and all(isinstance(part, str) for part in values):
            return [part.strip() for part in values]
    return [text]


def join_captions(captions: Sequence[str]) -> str:
    """Captions as the text of one cell, which :func:`read_captions` takes apart again."""
    if len(captions) == 1 and _texts(captions[0]) == list(captions):
        return captions[0]
    return json.dumps(list(captions), ensure_ascii=False) if captions else ""
