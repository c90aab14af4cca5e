"""LoRA and DoRA files, in every naming that is around, read into one form and written in the released one.

Namings read: PEFT's and the release's (``lora_A``/``lora_B``, ``lora_magnitude_vector``, with or without the adapter
name ``default`` and the prefix ``base_model.model.``), ComfyUI's (prefix ``diffusion_model.``,
``lora_down``/``lora_up``, ``alpha``, ``dora_scale``) and the additive differences of step-distillation files (``diff``,
``diff_b``, ``diff_m``).
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.io import load_state_dict, read_metadata, save_safetensors

FORMAT, FORMAT_VERSION = "wan_alpha.adapter", "1"
PREFIXES = ("base_model.model.", "pipe.dit.", "model.diffusion_model.", "diffusion_model.")
# How a key ends -> the part of the adapter that it holds. PEFT's adapter name is whatever the writer chose.
_PARTS = {
    r"\.(?:lora_A(?:\.\w+)?\.weight|lora_A|lora_down(?:\.weight)?)": "down",
    r"\.(?:lora_B(?:\.\w+)?\.weight|lora_B|lora_up(?:\.weight)?)": "up",
    r"\.(?:lora_magnitude_vector(?:\.\w+)?\.weight|lora_magnitude_vector(?:\.\w+)?|dora_scale)": "magnitude",
    r"\.alpha": "alpha",
    r"\.diff": "weight",
    r"\.diff_b": "bias",
    r"\.diff_m": "modulation",
}
_DIFFERENCES = ("weight", "bias", "modulation")


@dataclass(frozen=True)
class LowRank:
    """What a file says about one weight: W + scale * up @ down, and DoRA's row magnitudes if it has them.

    Attributes:
        down: A, (rank, in, ...); up: B, (out, rank, ...).
        scale: alpha / rank.
        magnitude: m, (out,), or None for LoRA.
    """

    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None


@dataclass(frozen=True)
class Adapter:
    """One adapter file.

    Attributes:
        path: the file.
        kind: "dora", "lora", or "difference" where nothing is of low rank.
        modules: module name (``blocks.0.self_attn.q``) -> LowRank.
        differences: parameter name (``blocks.0.norm3.bias``) -> what is added to it.
        metadata: the file's own, str to str.
    """

    path: Path
    kind: str
    modules: dict[str, LowRank]
    differences: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def read_adapter(path):
    """Read a LoRA or DoRA file in any of the known namings.

    The scale of a module is its own ``alpha`` over its rank; else the alpha over the rank that the file's metadata or
    the ``adapter_config.json`` beside it names; else 1, as the release and the step-distillation files mean it.

    Raises:
        CheckpointError: not an adapter, a key that belongs to none of the namings, half of a pair, ranks that do not
            meet, or a file in which some modules have magnitudes and some have not.
    """
    path = Path(path)
    tensors, metadata = load_state_dict(path), read_metadata(path)
    parts, differences = {}, {}
    for key, tensor in tensors.items():
        name, part = _split_key(path, key)
        target, slot = (differences, f"{name}.{part}") if part in _DIFFERENCES else (parts.setdefault(name, {}), part)
        if slot in target:
            raise CheckpointError(f"{path}: {key} is there a second time under another name")
        target[slot] = tensor
    file_scale = _file_scale(path, metadata)
    modules = {name: _low_rank(path, name, found, file_scale) for name, found in parts.items()}
    return Adapter(path, _kind(path, modules, metadata), modules, differences, metadata)


def write_adapter(tensors, path, *, kind, rank, alpha, targets, base_sha256, recipe=None):
    """Write an adapter, named as the release names it, with what is needed to use it in the metadata.

    Args:
        tensors: name (``blocks.0.self_attn.q.lora_A.default.weight``) to tensor.
        path: ``.safetensors``.
        kind: "dora" or "lora"; rank, alpha: the scale is alpha / rank; targets: names of the adapted layers.
        base_sha256: what the adapter was trained on; recipe: how, or None.
    """
    metadata = adapter_metadata(
        kind=kind, rank=rank, alpha=alpha, targets=targets, base_sha256=base_sha256, recipe=recipe
    )
    save_safetensors(tensors, path, metadata)


def adapter_metadata(*, kind, rank, alpha, targets, base_sha256, recipe=None):
    """What an adapter file says of itself; see :func:`write_adapter`."""
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind, "rank": rank, "alpha": alpha}
    return metadata | {"targets": list(targets), "base_sha256": base_sha256, "recipe": recipe}


def _split_key(path, key):
    name = key
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    for pattern, part in _PARTS.items():
        match = re.fullmatch(rf"(.+?){pattern}", name)
        if match:
            return match[1], part
    raise CheckpointError(
        f"{path}: {key} is no adapter key; expected one that ends with lora_A/lora_B or lora_down/lora_up, "
        "lora_magnitude_vector or dora_scale, alpha, diff, diff_b, diff_m"
    )


def _low_rank(path, name, parts, file_scale):
    missing = [part for part in ("down", "up") if part not in parts]
    if missing:
        raise CheckpointError(f"{path}: {name} has {', '.join(sorted(parts))} but no {' and no '.join(missing)} matrix")
    down, up = parts["down"], parts["up"]
    if down.ndim < 2 or up.ndim < 2 or down.shape[0] != up.shape[1]:
        raise CheckpointError(
            f"{path}: {name}: expected (rank, in) and (out, rank), found {tuple(down.shape)} and {tuple(up.shape)}"
        )
    magnitude = parts.get("magnitude")
    if magnitude is not None:
        if magnitude.numel() != up.shape[0]:
            raise CheckpointError(
                f"{path}: {name}: expected {up.shape[0]} magnitudes, one a row, found shape {tuple(magnitude.shape)}"
            )
        magnitude = magnitude.flatten()
    if "alpha" not in parts:
        return LowRank(down, up, file_scale, magnitude)
    if parts["alpha"].numel() != 1:
        raise CheckpointError(f"{path}: {name}.alpha: expected one number, found shape {tuple(parts['alpha'].shape)}")
    return LowRank(down, up, float(parts["alpha"]) / down.shape[0], magnitude)


def _kind(path, modules, metadata):
    plain = [name for name, module in modules.items() if module.magnitude is None]
    if plain and len(plain) < len(modules):
        raise CheckpointError(f"{path}: a DoRA file, yet {plain[0]} has no magnitudes; the file is incomplete")
    kind = "difference" if not modules else "lora" if plain else "dora"
    claimed = metadata.get("kind", kind) if metadata.get("format") == FORMAT else kind
    if claimed != kind:
        raise CheckpointError(f"{path}: expected a {claimed} file, as its metadata says, found the tensors of {kind}")
    return kind


def _file_scale(path, metadata):
    if metadata.get("format") == FORMAT:
        try:
            return float(metadata["alpha"]) / float(metadata["rank"])
        except (KeyError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(f"{path}: expected numbers as rank and alpha in the metadata ({error})") from error
    config_path = path.with_name("adapter_config.json")
    if path.stem != "adapter_model" or not config_path.is_file():
        return 1.0
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        if config.get("use_rslora") or config.get("alpha_pattern") or config.get("rank_pattern"):
            raise CheckpointError(f"{config_path}: use_rslora, alpha_pattern and rank_pattern are not supported")
        return float(config["lora_alpha"]) / float(config["r"])
    except (json.JSONDecodeError, KeyError, ZeroDivisionError) as error:
        raise CheckpointError(f"{config_path}: expected PEFT's lora_alpha and r ({error})") from error
