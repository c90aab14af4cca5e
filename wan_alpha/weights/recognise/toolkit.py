"""What this toolkit and the released Wan-Alpha write: RGBA VAE weights, masks, caches, checkpoints, runs."""

import json
import re
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.recognise.component import Component, counted
from wan_alpha.weights.registry import known_models
from wan_alpha.weights.shards import read_json

_MERGE = ("merge.", "middle.block.")
_DECODER = re.compile(r"(foreground|alpha|vae_fgr\.decoder|vae_pha\.decoder)\..+\.lora_A")
PLACEHOLDER_FORMAT = "wan_alpha.textual_inversion"
_NAMELESS = ("emb_params", "emp_params")  # of other programs, whose file's name is the word
_PLACEHOLDER = re.compile(r"<[^<>]+>|emb_params|emp_params")
_ORIGIN = ("base_sha256", "recipe_sha256", "trigger_words", "tokens", "format", "rank")
_CACHE_TENSORS = {"context", "ellipse", "latents"}
CACHE_INDEX, CHECKPOINT_STATE, CHECKPOINT_MARKER, RUN_RECIPE = (
    "cache.json",
    "state.json",
    "complete.json",
    "recipe.json",
)


def rgba_vae(tensors, metadata, paths):
    """A Component of RGBA VAE weights, in this project's naming or the released one; None for anything else."""
    names = {name.removeprefix("module."): info for name, info in tensors.items()}
    merge = [name for name in names if name.startswith(_MERGE)]
    streams = {match[1] for match in map(_DECODER.match, names) if match}
    if not merge and not streams:
        return None
    released = any(name.startswith(("middle.block.", "vae_fgr.", "vae_pha.")) for name in names)
    details = {
        "parts": [*(["merge block"] if merge else []), *(["foreground decoder", "alpha decoder"] if streams else [])],
        "version": rgba_vae_version(metadata, paths),
        "rank": next((info.shape[0] for name, info in names.items() if _DECODER.match(name)), None),
    }
    problems = ()
    if len(streams) == 1:
        problems = (f"expected two decoders, found {streams.pop()} alone; the file is incomplete: save it again",)
    channels = _latent_channels(names)
    if channels:
        details["latent_channels"] = channels
    if metadata.get("base_vae_sha256"):
        details["base_vae_sha256"] = metadata["base_vae_sha256"]
    kind = "rgba_vae" if merge else "decoder_lora"
    what = "merge block and two decoders" if merge and streams else "merge block alone" if merge else "two decoders"
    title = f"{what}, {details['version']}"
    naming = "released" if released else "wan-alpha"
    return Component(kind, title, tuple(paths), naming, details=details, problems=problems, **counted(tensors.values()))


def rgba_vae_version(metadata, paths=()):
    """ "v1" or "v2" by what trained the weights, or why that cannot be told: both have the same tensors."""
    try:
        recipe = json.loads(metadata.get("recipe", "{}"))
    except json.JSONDecodeError:
        recipe = {}
    if isinstance(recipe, dict) and recipe:
        weights = [value for name, value in _flat(recipe) if "diffusion" in name and isinstance(value, (int, float))]
        return "v2" if any(weight > 0 for weight in weights) else "v1"
    for path in paths:
        beside = path.parent.glob("*gauss_mask*") if path.parent.is_dir() else ()
        if re.search(r"v2|2\.0", f"{path.parent.name}/{path.name}".lower()) or any(beside):
            return "v2 by the names beside it"
    return "v1 or v2"


def bare_tensor(info, paths):
    """A Component of a file that is one tensor without a name: a Gaussian mask, or something unknown."""
    shape = list(info.shape)
    while len(shape) > 3 and shape[0] == 1:
        shape.pop(0)
    if len(shape) == 3 and info.dtype in ("F64", "F32", "F16", "BF16"):
        title = f"Gaussian mask of {shape[0]} latent frames, {shape[1]}x{shape[2]}"
        return Component("gauss_mask", title, tuple(paths), sizes={"grid": shape}, **counted([info]))
    title = f"one tensor of shape {tuple(info.shape)}, {info.dtype}"
    problem = "expected a Gaussian mask: a float tensor of latent frames x height x width"
    return Component("unknown", title, tuple(paths), problems=(problem,), **counted([info]))


def cache_item(tensors, metadata, paths):
    """A Component of one clip of a latent cache, or None."""
    if set(tensors) != _CACHE_TENSORS:
        return None
    details = {name: metadata[name] for name in ("prompt", "background") if name in metadata}
    title = f"item of a latent cache, latents {'x'.join(map(str, tensors['latents'].shape))}"
    return Component("cache_item", title, tuple(paths), details=details, **counted(tensors.values()))


def placeholders(tensors, metadata, paths):
    """A Component of words that textual inversion learned, or None."""
    is_told = metadata.get("format") == PLACEHOLDER_FORMAT
    if not tensors or not (is_told or all(_PLACEHOLDER.fullmatch(name) for name in tensors)):
        return None
    shapes = {name: info.shape if len(info.shape) == 2 else (1, *info.shape) for name, info in tensors.items()}
    problems = ()
    if {len(shape) for shape in shapes.values()} != {2} or len({shape[1] for shape in shapes.values()}) != 1:
        problems = (f"{paths[0]}: expected placeholders of (vectors, width) each and one width; learn the word again",)
    width = next(iter(shapes.values()))[-1]
    words = {f"<{paths[0].stem}>" if name in _NAMELESS else name: shape[0] for name, shape in shapes.items()}
    families = [name for name, model in known_models().items() if model.text_encoder["dim"] == width]
    details = {"words": [f"{word} ({number} vectors)" for word, number in words.items()], "width": width}
    details |= {name: metadata[name] for name in sorted(metadata) if name == "initializer" or is_told_of_origin(name)}
    title = f"textual inversion, {sum(words.values())} vectors of {width} for {', '.join(words)}"
    return Component(
        "placeholders", title, tuple(paths), families=tuple(families), details=details, problems=problems,
        **counted(tensors.values()),
    )  # fmt: skip


def is_told_of_origin(name):
    """Whether a name of a file's metadata says where it is from, so that inspect shows it."""
    return name.startswith("modelspec.") or name.removeprefix("wan_alpha.") in _ORIGIN


def toolkit_folder(folder):
    """A Component of a folder that this toolkit wrote (cache, checkpoint, run), or None."""
    folder = Path(folder)
    if (folder / CACHE_INDEX).is_file():
        return _cache(folder)
    if (folder / CHECKPOINT_STATE).is_file() and re.match(r"step_\d+", folder.name):
        return _checkpoint(folder)
    if (folder / RUN_RECIPE).is_file():
        return _run(folder)
    return None


def _cache(folder):
    index = read_json(folder / CACHE_INDEX, "the index of a latent cache")
    keys = index.get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) and re.fullmatch(r"[0-9a-f]+", key) for key in keys):
        raise CheckpointError(
            f"{folder / CACHE_INDEX}: expected the keys of a latent cache; run `wan-alpha cache` again"
        )
    missing = [key for key in set(keys) if not (folder / "items" / f"{key}.safetensors").is_file()]
    problems = ()
    if missing:
        problems = (
            f"{len(missing)} of {len(keys)} items missing, {min(missing)[:12]} first; run `wan-alpha cache` again",
        )
    details = {name: index[name] for name in ("context_length", "vae_fingerprint", "text_fingerprint") if name in index}
    return Component("cache", f"latent cache of {len(keys)} clips", (folder,), details=details, problems=problems)


def _checkpoint(folder):
    state = read_json(folder / CHECKPOINT_STATE, "the state of a checkpoint")
    problems = ()
    if not (folder / CHECKPOINT_MARKER).is_file() and state.get("format_version", 0) > 2:
        problems = (f"{CHECKPOINT_MARKER} is missing: it was not written to its end; use the checkpoint before it",)
    title = f"checkpoint of step {state.get('step')}"
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    return Component("checkpoint", title, (folder,), details={"files": files}, problems=problems)


def _run(folder):
    recipe = read_json(folder / RUN_RECIPE, "the recipe of a run")
    steps = sorted(path.name for path in (folder / "checkpoints").glob("step_*")) if folder.is_dir() else []
    exports = sorted(path.name for path in folder.glob("*.safetensors"))
    details = {"checkpoints": steps, "exports": exports, "tables": sorted(recipe)}
    return Component("run", f"run with {len(steps)} checkpoints", (folder,), details=details)


def _latent_channels(names):
    for ending in ("merge.head.2.weight", "merge.conv_out.weight", "middle.block.head.2.weight"):
        if ending in names:
            return names[ending].shape[0]
    return None


def _flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
