"""LoRA, DoRA and LoKr files, in every naming that is around, read into one form and written in the released one.

Namings read: those of :mod:`wan_alpha.weights.adapter_keys`, among them the additive differences of step-distillation
files (``diff``, ``diff_b``, ``diff_m``). :mod:`wan_alpha.weights.adapter_dialects` writes the others.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.adapter_card import AdapterCard, own_metadata, read_card
from wan_alpha.weights.adapter_keys import (
    DIFFERENCES,
    EXPERTS,
    KRONECKER,
    TRANSFORMERS,
    is_of_low_noise,
    recognise_dialect,
    split_key,
)
from wan_alpha.weights.adapter_parts import Kronecker, LowRank
from wan_alpha.weights.adapter_scale import PEFT_STEM, find_peft_config, own_scale
from wan_alpha.weights.io import load_state_dict, read_metadata, save_safetensors

FORMAT, FORMAT_VERSION = "wan_alpha.adapter", "1"
DORA_NORMS = ("adapted", "base")
# How a folder's adapter is called, by PEFT, by diffusers, by this project's training.
_FILES = (f"{PEFT_STEM}.safetensors", f"{PEFT_STEM}.bin", "pytorch_lora_weights.safetensors", "adapter.safetensors")


@dataclass(frozen=True)
class Adapter:
    """One adapter file.

    Attributes:
        path: the file.
        kind: "dora", "lora", "lokr", or "difference" where nothing is of low rank.
        modules: layer, as Wan names it (``blocks.0.self_attn.q``) -> LowRank or Kronecker.
        differences: parameter name (``blocks.0.norm3.bias``) -> what is added to it.
        metadata: the file's own, str to str.
        dialect: one of ``adapter_keys.DIALECTS``.
        dora_norm: what a magnitude is divided by: "adapted", the norm of W + s*B*A, as DoRA has it; "base", the norm of
            W, as ComfyUI computes it.
    """

    path: Path
    kind: str
    modules: dict[str, LowRank | Kronecker]
    differences: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    dialect: str = "wan-alpha"
    dora_norm: str = "adapted"

    @property
    def card(self) -> AdapterCard:
        """What the metadata says of where it is from."""
        return read_card(self.metadata)


def read_adapter(path, expert=None, dora_norm=None):
    """Read a LoRA, DoRA or LoKr in any of the known namings.

    The factor of a layer is its own ``alpha`` over its rank; else what the metadata or PEFT's configuration says; else
    1: see :mod:`wan_alpha.weights.adapter_scale`.

    Args:
        path: a file, or PEFT's or diffusers' folder.
        expert: "high_noise" or "low_noise": which to take of a file that holds adapters of both of A14B's experts, as
            diffusers' two transformers; files of one expert do not need it.
        dora_norm: "adapted" or "base", what the magnitudes are divided by; None: what the metadata says, else
            "adapted".

    Raises:
        CheckpointError: not an adapter, a key that belongs to none of the namings, half of a pair, ranks that do not
            meet, or a file in which some layers have magnitudes and some have not.
    """
    path = adapter_file(path)
    tensors, metadata = load_state_dict(path), read_metadata(path)
    dialect, num_keys = recognise_dialect(tensors), len(tensors)
    tensors = _of_one_expert(path, tensors, expert)
    is_of_both = len(tensors) < num_keys
    config = find_peft_config(path, metadata, TRANSFORMERS[any(map(is_of_low_noise, tensors))])
    if is_of_both:
        metadata = metadata | {"expert": expert}
    layers, differences, names = {}, {}, {}
    for key, tensor in tensors.items():
        found = split_key(path, key)
        is_difference = found.part in DIFFERENCES
        parts = differences if is_difference else layers.setdefault(found.layer, {})
        slot = f"{found.layer}.{found.part}" if is_difference else found.part
        if slot in parts:
            raise CheckpointError(f"{path}: {key} is there a second time under another name")
        parts[slot] = tensor
        names[found.layer] = found.written
    modules = {}
    for layer, parts in layers.items():
        module = _module(path, layer, parts)
        scale = _scale(path, layer, names[layer], parts, module, metadata, config)
        modules[layer] = replace(module, scale=scale)
        if "up_bias" in parts:
            differences[f"{layer}.bias"] = scaled_exactly(parts["up_bias"], scale)
    norm = dora_norm or metadata.get("wan_alpha.dora_norm") or DORA_NORMS[0]
    if norm not in DORA_NORMS:
        raise CheckpointError(f"{path}: expected dora_norm adapted or base in the metadata, found {norm!r}")
    return Adapter(path, _kind(path, modules, metadata), modules, differences, metadata, dialect, norm)


def adapter_file(path):
    """The adapter's file in a folder that PEFT, diffusers or this project's training wrote; a file is itself.

    Raises:
        CheckpointError: a folder without one.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path}: expected an adapter there ({', '.join(_FILES)}), found none; name its file")


def write_adapter(tensors, path, *, kind, rank, alpha, targets, base_sha256, recipe=None):
    """Write an adapter, named as the release names it, with what is needed to use it in the metadata.

    Args:
        tensors: name (``blocks.0.self_attn.q.lora_A.default.weight``) to tensor.
        path: ``.safetensors``.
        kind: "dora" or "lora"; rank, alpha: the scale is alpha / rank; targets: names of the adapted layers.
        base_sha256: what the adapter was trained on; recipe: how, or None.
    """
    card = AdapterCard(title=Path(path).stem, base_sha256=base_sha256, recipe=recipe)
    metadata = adapter_metadata(tensors, kind=kind, rank=rank, alpha=alpha, targets=targets, card=card)
    save_safetensors(tensors, path, metadata)


def adapter_metadata(tensors, *, kind, rank, alpha, targets, card):
    """What an adapter file in the released naming says of itself; see :func:`write_adapter`."""
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind, "rank": rank, "alpha": alpha}
    return metadata | {"targets": list(targets)} | own_metadata(card, tensors, kind)


def scaled_exactly(tensor, factor):
    """tensor * factor, in the tensor's dtype where that is exact, else in float32."""
    product = tensor.float() * factor
    rounded = product.to(tensor.dtype)
    return rounded if torch.equal(rounded.float(), product) else product


def _of_one_expert(path, tensors, expert):
    low = set(filter(is_of_low_noise, tensors))
    if not low or len(low) == len(tensors):
        if low and expert == EXPERTS[0]:
            raise CheckpointError(f"{path}: {min(low)}: the adapter of the {EXPERTS[1]} expert, not of {expert}")
        return tensors
    if expert is None:
        raise CheckpointError(
            f"{path}: {min(low)} belongs to a second expert; write each to a file of its own with `wan-alpha "
            f"convert-adapter`, --expert {EXPERTS[0]} and --expert {EXPERTS[1]}"
        )
    return {key: tensor for key, tensor in tensors.items() if (key in low) == (expert == EXPERTS[1])}


def _module(path, layer, parts):
    """The layer's LowRank or Kronecker, its shapes checked; its scale comes later."""
    factors = {name: parts[name] for name in KRONECKER if name in parts}
    if factors and parts.keys() & {"down", "up"}:
        raise CheckpointError(f"{path}: {layer} has the factors of a LoKr and those of a LoRA")
    module = _kronecker(path, layer, factors) if factors else _low_rank(path, layer, parts)
    return replace(module, magnitude=_magnitude(path, layer, parts, module.shape))


def _low_rank(path, layer, parts):
    missing = [part for part in ("down", "up") if part not in parts]
    if missing:
        raise CheckpointError(
            f"{path}: {layer} has {', '.join(sorted(parts))} but no {' and no '.join(missing)} matrix; "
            "the file is incomplete: download or save it again"
        )
    down, up = parts["down"], parts["up"]
    if down.ndim < 2 or up.ndim < 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise CheckpointError(
            f"{path}: {layer}: expected (rank, in) and (out, rank), found {tuple(down.shape)} and {tuple(up.shape)}"
        )
    return LowRank(down, up, 1.0)


def _kronecker(path, layer, factors):
    for name in ("lokr_w1", "lokr_w2"):
        pair = [f"{name}_a", f"{name}_b"]
        if (name in factors) == any(half in factors for half in pair):
            raise CheckpointError(f"{path}: {layer}: expected {name}, or {' and '.join(pair)}, found {sorted(factors)}")
        if name not in factors and any(half not in factors for half in pair):
            raise CheckpointError(f"{path}: {layer}: expected {' and '.join(pair)}, found one of the two")
        shapes = [tuple(factors[half].shape) for half in (pair if name not in factors else [name])]
        if any(len(shape) != 2 for shape in shapes) or (len(shapes) == 2 and shapes[0][1] != shapes[1][0]):
            raise CheckpointError(f"{path}: {layer}.{name}: expected matrices that multiply, found {shapes}")
    return Kronecker(factors, 1.0)


def _magnitude(path, layer, parts, shape):
    if "magnitude" in parts and "dora_scale" in parts:
        raise CheckpointError(f"{path}: {layer} has magnitudes twice, as lora_magnitude_vector and as dora_scale")
    magnitude = parts.get("magnitude", parts.get("dora_scale"))
    if magnitude is None:
        return None
    # ComfyUI takes the axis from the shape: (1, in) is one magnitude a column.
    if "dora_scale" in parts and magnitude.ndim > 1 and magnitude.shape[0] == 1 != shape[0]:
        raise CheckpointError(
            f"{path}: {layer}.dora_scale: shape {tuple(magnitude.shape)} is a magnitude an input, where DoRA has one a "
            f"row, ({shape[0]}, 1); that is not read, merge it into its base where it was made"
        )
    if magnitude.numel() != shape[0]:
        raise CheckpointError(
            f"{path}: {layer}: expected {shape[0]} magnitudes, one a row, found shape {tuple(magnitude.shape)}"
        )
    return magnitude.flatten()


def _scale(path, layer, written, parts, module, metadata, config):
    if "alpha" in parts:
        if parts["alpha"].numel() != 1:
            raise CheckpointError(
                f"{path}: {layer}.alpha: expected one number, found shape {tuple(parts['alpha'].shape)}"
            )
        # A LoKr of whole factors has no rank to divide by: ComfyUI and LyCORIS leave alpha out then.
        return 1.0 if module.rank is None else float(parts["alpha"]) / module.rank
    if metadata.get("format") == FORMAT:
        return own_scale(path, metadata, layer)
    return 1.0 if config is None else config.scale(written, module.rank)


def _kind(path, modules, metadata):
    plain = [name for name, module in modules.items() if module.magnitude is None]
    if plain and len(plain) < len(modules):
        raise CheckpointError(f"{path}: a DoRA file, yet {plain[0]} has no magnitudes; the file is incomplete")
    kronecker = [isinstance(module, Kronecker) for module in modules.values()]
    if any(kronecker):
        kind = "lokr"
    else:
        kind = "difference" if not modules else "lora" if plain else "dora"
    claimed = metadata.get("kind", kind) if metadata.get("format") == FORMAT else kind
    if claimed != kind:
        raise CheckpointError(f"{path}: expected a {claimed} file, as its metadata says, found the tensors of {kind}")
    return kind
