"""Where an adapter is from: ModelSpec's fields, the base it was trained on, its recipe, its trigger words and tokens.

ModelSpec (https://github.com/Stability-AI/ModelSpec, version 1.0.1) names what programs show of a weight file:
``modelspec.title``, ``modelspec.trigger_phrase`` and so on. What it has no name for stands beside it under this
project's names, in files of other dialects behind ``wan_alpha.``.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from wan_alpha.weights.io import read_metadata
from wan_alpha.weights.safetensors_stream import CONTENT_SHA256

SPEC, SPEC_VERSION = "modelspec.", "1.0.1"
PREFIX = "wan_alpha."
IMPLEMENTATION = "https://github.com/Wan-Video/Wan2.1"
# Width of a released DiT -> ModelSpec's architecture; a width tells all that an adapter knows of its base.
_ARCHITECTURES = {1536: "wan-1.3b", 3072: "wan-5b", 5120: "wan-14b"}
_OWN = ("base_sha256", "recipe", "recipe_sha256", "trigger_words", "tokens")


@dataclass(frozen=True)
class AdapterCard:
    """What an adapter's metadata says of where it is from; None or empty where it does not say.

    Attributes:
        title: name to show; architecture: ModelSpec's, ``wan-1.3b/lora`` say.
        date: ISO 8601; resolution: pixels, ``832x480``.
        hash_sha256: of the tensors' bytes, hex; base_sha256: of the weights that it was trained on.
        recipe: how it was trained; recipe_sha256: hash of that, without the folder.
        trigger_words: words that call for what it learned; tokens: words that its training added to the vocabulary.
    """

    title: str | None = None
    architecture: str | None = None
    date: str | None = None
    resolution: str | None = None
    hash_sha256: str | None = None
    base_sha256: str | None = None
    recipe: dict[str, Any] | None = None
    recipe_sha256: str | None = None
    trigger_words: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()


def read_adapter_card(path) -> AdapterCard:
    """The card of a safetensors file, from its header alone.

    Raises:
        CheckpointError: the file is missing or its header is not valid.
    """
    return read_card(read_metadata(path))


def read_card(metadata) -> AdapterCard:
    """The card in a file's metadata (str to str), whichever program wrote it."""
    spec = {name: metadata.get(SPEC + name) for name in ("title", "architecture", "date", "resolution")}
    own = {name: metadata.get(PREFIX + name, metadata.get(name)) for name in _OWN}
    recipe = _from_json(own["recipe"], dict)
    phrase = metadata.get(f"{SPEC}trigger_phrase", "")
    words = _from_json(own["trigger_words"], list) or [word.strip() for word in phrase.split(",")]
    return AdapterCard(
        **spec,
        hash_sha256=(metadata.get(f"{SPEC}hash_sha256") or "").removeprefix("0x") or None,
        base_sha256=own["base_sha256"],
        recipe=recipe,
        recipe_sha256=own["recipe_sha256"],
        trigger_words=tuple(str(word) for word in words if word),
        tokens=tuple(map(str, _from_json(own["tokens"], list) or ())),
    )


def recipe_sha256(recipe):
    """Hash of a recipe's values, hex; the folder that it writes to does not count."""
    values = {name: value for name, value in recipe.items() if name != "output_dir"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def own_metadata(card, tensors, kind, prefix="", implementation=IMPLEMENTATION):
    """The card as a file's metadata; the hash of its tensors is taken while they are written.

    Args:
        card: an AdapterCard; its hashes of tensors and recipe are made anew.
        tensors: what the file holds; kind: "lora", "dora", "lokr" or "difference".
        prefix: of this project's own names; implementation: whose names the tensors have.

    Returns:
        str to str, or values that JSON can hold.
    """
    architecture = card.architecture or f"{architecture_of(_width(tensors))}/{'lora' if kind == 'dora' else kind}"
    spec = {
        "sai_model_spec": SPEC_VERSION, "architecture": architecture, "implementation": implementation,
        "title": card.title or "untitled", "date": card.date, "resolution": card.resolution,
        "trigger_phrase": ", ".join(card.trigger_words) or None, "hash_sha256": CONTENT_SHA256,
    }  # fmt: skip
    recipe = card.recipe_sha256 if card.recipe is None else recipe_sha256(card.recipe)
    own = {
        "base_sha256": card.base_sha256, "recipe": card.recipe, "recipe_sha256": recipe,
        "trigger_words": list(card.trigger_words), "tokens": list(card.tokens),
    }  # fmt: skip
    metadata = {SPEC + name: value for name, value in spec.items()} | {prefix + name: own[name] for name in _OWN}
    return {name: value for name, value in metadata.items() if value is not None}


def architecture_of(width):
    """ModelSpec's architecture of a Wan DiT of a width; None where that is not known."""
    return _ARCHITECTURES.get(width, "wan" if width is None else f"wan-{width}")


def _width(tensors):
    widths = {
        tensor.shape[1]
        for key, tensor in tensors.items()
        if ("attn" in key or "ffn.0." in key or "ffn.net.0." in key) and (".lora_A" in key or ".lora_down" in key)
    }
    return widths.pop() if len(widths) == 1 else None


def _from_json(text, kind):
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, kind) else None
