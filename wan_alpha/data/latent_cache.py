"""What stage 2 trains on: contexts, latents and ellipses computed once, in files that say what they were made from.

<cache>/cache.json                  the index, written last: a folder without it is not finished
<cache>/empty_prompt.safetensors    the context of the empty caption
<cache>/items/<key>.safetensors     one clip; the key is a hash of everything its content depends on
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wan_alpha.errors import CheckpointError, DataError
from wan_alpha.weights.io import load_state_dict, read_metadata, replacing, save_safetensors

FORMAT_VERSION = 1
ITEM_TENSORS = ("context", "ellipse", "latents")


@dataclass(frozen=True)
class CacheItem:
    """One clip, ready for the diffusion model.

    Attributes:
        latents: normalised, (C, t, h, w), float32.
        context: text embedding without its padding, (L, text_dim).
        ellipse: Gaussian ellipse of the subject, (t, h, w), [0, 1].
        prompt: the caption.
        background: name of the colour that the hard render was made on.
        sources: the files that the clip was read from.
        other_prompts, other_contexts: more captions of the clip, and their text embeddings.
    """

    latents: Tensor
    context: Tensor
    ellipse: Tensor
    prompt: str
    background: str
    sources: tuple[str, ...] = ()
    other_prompts: tuple[str, ...] = ()
    other_contexts: tuple[Tensor, ...] = ()

    @property
    def captions(self) -> list[tuple[str, Tensor]]:
        """(caption, its context) of each caption, at least one."""
        return list(zip((self.prompt, *self.other_prompts), (self.context, *self.other_contexts), strict=True))


@dataclass(frozen=True)
class CacheIndex:
    """The content of cache.json.

    Attributes:
        keys: the items in the order of the dataset; a clip that occurs twice is listed twice.
        vae_fingerprint, text_fingerprint: hashes of the weights that made latents and contexts.
        context_length: rows that a context is padded to.
        preprocessing: how frames were chosen, scaled and rendered.
        vae_files: the weight files that the VAE was read from: argument of RGBAlphaVAE.from_pretrained to
            {"path", "sha256"}.
        parts: of several datasets, in the order of the keys: {"name", "num_items", "weight"} of each; () for one.
    """

    keys: tuple[str, ...]
    vae_fingerprint: str
    text_fingerprint: str
    context_length: int
    preprocessing: dict = field(default_factory=dict)
    vae_files: dict = field(default_factory=dict)
    parts: tuple[dict, ...] = ()
    format_version: int = FORMAT_VERSION


def content_key(**content) -> str:
    """The sha256, as hex, of named values that JSON can hold; their order does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def item_path(folder, key: str) -> Path:
    return Path(folder) / "items" / f"{key}.safetensors"


def write_item(folder, key: str, item: CacheItem) -> Path:
    """Write one item; the file appears whole or not at all."""
    path = item_path(folder, key)
    tensors = {"latents": item.latents, "context": item.context, "ellipse": item.ellipse}
    tensors |= {f"context_{number}": context for number, context in enumerate(item.other_contexts, 2)}
    metadata = {"key": key, "prompt": item.prompt, "background": item.background, "sources": json.dumps(item.sources)}
    if item.other_prompts:
        metadata["other_prompts"] = json.dumps(item.other_prompts)
    save_safetensors(tensors, path, {"format_version": str(FORMAT_VERSION), **metadata})
    return path


def read_item(folder, key: str) -> CacheItem:
    """Read one item.

    Raises:
        DataError: the file is missing, truncated or not a cache item.
    """
    path = item_path(folder, key)
    try:
        tensors, metadata = load_state_dict(path), read_metadata(path)
    except CheckpointError as error:
        raise DataError(f"{error}; run `wan-alpha cache` again, which rebuilds this item") from error
    other_prompts = tuple(json.loads(metadata.get("other_prompts", "[]")))
    if sorted(tensors) != _item_tensors(len(other_prompts)):
        raise DataError(f"{path}: expected the tensors {', '.join(ITEM_TENSORS)}, found {', '.join(sorted(tensors))}")
    others = tuple(tensors.pop(f"context_{number}") for number in range(2, 2 + len(other_prompts)))
    text = {name: metadata.get(name, "") for name in ("prompt", "background")}
    sources = tuple(json.loads(metadata.get("sources", "[]")))
    return CacheItem(**tensors, **text, sources=sources, other_prompts=other_prompts, other_contexts=others)


def _item_tensors(num_other_prompts):
    return sorted([*ITEM_TENSORS, *(f"context_{number}" for number in range(2, 2 + num_other_prompts))])


def item_shape(folder, key: str) -> tuple[int, int, int]:
    """(t, h, w) of an item's latents, from the file's header.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with safe_open(item_path(folder, key), framework="pt") as file:
            return tuple(file.get_slice("latents").get_shape()[1:])
    except (SafetensorError, OSError) as error:
        raise DataError(f"{item_path(folder, key)}: {error}; run `wan-alpha cache` again") from error


def item_problem(folder, key: str) -> str | None:
    """What is wrong with an item's file, in words, or None if it is complete. Only the header is read."""
    path = item_path(folder, key)
    if not path.is_file():
        return "missing"
    try:
        # safetensors compares the file's length with what the header promises: a truncated file does not open.
        with safe_open(path, framework="pt") as file:
            names, metadata = sorted(file.keys()), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        return f"truncated or damaged ({error})"
    num_others = len(json.loads(metadata.get("other_prompts", "[]")))
    if names != _item_tensors(num_others) or metadata.get("key") != key:
        return "not the item that its name says"
    return None


def write_empty_context(folder, context: Tensor, text_fingerprint: str, context_length: int) -> None:
    """Write the context of the empty caption, (L, text_dim), and the length that this text encoder pads to."""
    metadata = {"text_fingerprint": text_fingerprint, "context_length": str(context_length)}
    save_safetensors({"context": context}, _empty_path(folder), metadata)


def read_context_length(folder) -> int:
    """Rows that contexts are padded to.

    Raises:
        CheckpointError: the empty caption's context is missing or damaged.
    """
    return int(read_metadata(_empty_path(folder))["context_length"])


def has_empty_context(folder, text_fingerprint: str) -> bool:
    """Whether the context of the empty caption is there, whole, and from this text encoder."""
    try:
        return read_metadata(_empty_path(folder)).get("text_fingerprint") == text_fingerprint
    except CheckpointError:
        return False


def _empty_path(folder) -> Path:
    return Path(folder) / "empty_prompt.safetensors"


def pad_context(context: Tensor, length: int) -> Tensor:
    """(L, text_dim) -> (length, text_dim), zeros below, as the text encoder's output is after its mask."""
    assert context.shape[0] <= length, f"context of {context.shape[0]} rows is longer than {length}"
    return F.pad(context, (0, 0, 0, length - context.shape[0]))


def write_index(folder, index: CacheIndex) -> None:
    """Write cache.json; the file appears whole or not at all."""
    with replacing(Path(folder) / "cache.json") as temporary:
        temporary.write_text(json.dumps(asdict(index), indent=1), encoding="utf-8")


def remove_index(folder) -> None:
    """Delete cache.json: from now on until the next index is written, the cache is not finished."""
    (Path(folder) / "cache.json").unlink(missing_ok=True)


def read_index(folder) -> CacheIndex:
    """Read cache.json.

    Raises:
        DataError: it is missing, not valid, or of another format version.
    """
    path = Path(folder) / "cache.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; build the cache with `wan-alpha cache`, or let it finish")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise DataError(f"{path}: format version {version}, expected {FORMAT_VERSION}; build the cache anew")
        return CacheIndex(**{**content, "keys": tuple(content["keys"]), "parts": tuple(content.get("parts", ()))})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a cache index ({error}); build the cache with `wan-alpha cache`") from error


def remove_strangers(folder, keys: Iterable[str]) -> int:
    """Delete item files that `keys` does not name; returns how many there were."""
    keep = set(keys)
    strangers = [path for path in (Path(folder) / "items").glob("*.safetensors") if path.stem not in keep]
    for path in strangers:
        path.unlink()
    return len(strangers)


@dataclass(frozen=True)
class LatentCache:
    """A finished cache, opened for reading."""

    folder: Path
    index: CacheIndex

    @classmethod
    def open(cls, folder) -> "LatentCache":
        """Open a cache.

        Raises:
            DataError: there is no finished cache in `folder`.
        """
        return cls(Path(folder), read_index(folder))

    @property
    def keys(self) -> tuple[str, ...]:
        return self.index.keys

    def verify(self) -> None:
        """Check that every item is there and whole.

        Raises:
            DataError: one is not (its file is named), the cache is empty, or the empty caption's context is missing.
        """
        if not self.keys:
            raise DataError(f"{self.folder}: the cache holds no items")
        problems = [(key, problem) for key in dict.fromkeys(self.keys) if (problem := item_problem(self.folder, key))]
        if problems:
            key, problem = problems[0]
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            path = item_path(self.folder, key)
            raise DataError(f"{path}: {problem}{more}; run `wan-alpha cache` again, which rebuilds it")
        if not has_empty_context(self.folder, self.index.text_fingerprint):
            path = _empty_path(self.folder)
            raise DataError(f"{path}: missing or of another text encoder; run `wan-alpha cache` again")

    def read(self, index: int) -> CacheItem:
        return read_item(self.folder, self.keys[index])

    def prompts(self) -> list[str]:
        """The captions of all items, from the files' headers."""
        headers = [read_metadata(item_path(self.folder, key)) for key in self.keys]
        return [
            prompt for one in headers for prompt in (one.get("prompt", ""), *json.loads(one.get("other_prompts", "[]")))
        ]

    def empty_context(self) -> Tensor:
        """The empty caption's context, padded: (context_length, text_dim), float32."""
        return pad_context(load_state_dict(_empty_path(self.folder))["context"].float(), self.index.context_length)
