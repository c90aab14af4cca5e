"""Files of placeholders (textual inversion): a few vectors of the text encoder's width under the word they stand for.

    <word>            (n, width) float32, one tensor a placeholder
    metadata          format, format_version, initializer (JSON: placeholder -> what it began as), and where it is from:
                      ModelSpec's fields, base_sha256 of the DiT that it learned with, recipe, tokens

Also read: one tensor named ``emb_params`` or ``emp_params``, as other tools write them; the file's name is the
placeholder then, in angle brackets.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.adapter_card import AdapterCard, own_metadata
from wan_alpha.weights.io import load_state_dict, read_metadata
from wan_alpha.weights.recognise.toolkit import PLACEHOLDER_FORMAT as FORMAT

FORMAT_VERSION = "1"
UMT5_XXL_WIDTH = 4096
_NAMELESS = ("emb_params", "emp_params")


@dataclass(frozen=True)
class Placeholders:
    """Learned words.

    Attributes:
        vectors: placeholder -> (n, width) float32; metadata: what the file says of itself, str to str.
    """

    vectors: dict[str, Tensor]
    metadata: dict = field(default_factory=dict)


def read_placeholders(path) -> Placeholders:
    """Read a file of placeholders.

    Raises:
        CheckpointError: unreadable, or a tensor that is no (n, width) vectors.
    """
    state, found = load_state_dict(path), {}
    for name, value in state.items():
        word = f"<{Path(path).stem}>" if name in _NAMELESS else name
        value = value[None] if value.dim() == 1 else value
        if value.dim() != 2 or not value.is_floating_point() or not value.shape[0]:
            raise CheckpointError(
                f"{path}: {name} is {tuple(value.shape)}; expected placeholders of (vectors, width) each, as "
                "textual inversion writes them (embeddings.safetensors)"
            )
        found[word] = value.float()
    widths = {value.shape[1] for value in found.values()}
    if len(widths) != 1:
        raise CheckpointError(f"{path}: expected placeholders of one width, found {sorted(widths) or 'none'}")
    return Placeholders(found, read_metadata(path))


def placeholder_metadata(vectors, initializers, card=None) -> dict:
    """What a file of placeholders says of itself.

    Args:
        vectors: placeholder -> (n, width), what the file holds; initializers: placeholder -> the words that it began
            as; card: an AdapterCard of where it is from.
    """
    width = next(iter(vectors.values())).shape[1]
    architecture = f"{'umt5-xxl' if width == UMT5_XXL_WIDTH else f'umt5-{width}'}/textual-inversion"
    card = replace(card or AdapterCard(), architecture=architecture, tokens=tuple(vectors))
    own = {"format": FORMAT, "format_version": FORMAT_VERSION, "initializer": json.dumps(initializers)}
    return own | own_metadata(card, vectors, "textual-inversion")
