"""Adapters, told by the names and shapes of their tensors: kind, rank, targets, and the bases that they fit."""

import json
import math
import re

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.adapter_keys import EXPERTS, KRONECKER, TRANSFORMERS, recognise_dialect, split_key
from wan_alpha.weights.adapter_scale import DIFFUSERS_METADATA, PEFT_CONFIG, of_transformer
from wan_alpha.weights.recognise.component import Component, counted
from wan_alpha.weights.recognise.toolkit import is_told_of_origin
from wan_alpha.weights.recognise.wan_parts import count_blocks
from wan_alpha.weights.registry import families_of, known_models
from wan_alpha.weights.shards import read_json

_MARK = re.compile(r"\.(lora_(A|B|up|down|magnitude_vector|mid)|dora_scale|lokr_|hada_|diff(_b|_m)?$)")
_WAN_LAYER = re.compile(
    r"blocks\.\d+\.(self_attn|cross_attn|ffn|norm3|modulation)|(patch|text|time)_embedding|time_projection|head|img_emb"
)
_FOREIGN = {
    "single_transformer_blocks": "Flux", "double_blocks": "Flux or HunyuanVideo", "joint_blocks": "Stable Diffusion 3",
    "transformer_blocks": "Flux, Stable Diffusion, LTX-Video or CogVideoX", "down_blocks": "Stable Diffusion",
    "input_blocks": "Stable Diffusion", "text_model": "a CLIP text encoder", "img_attn": "Flux or HunyuanVideo",
}  # fmt: skip


def is_adapter(tensors):
    """Whether most of a file's tensors are an adapter's."""
    marked = sum(bool(_MARK.search(name)) for name in tensors)
    return marked > 0 and 2 * marked >= len(tensors) - sum(name.endswith(".alpha") for name in tensors)


def describe_adapter(tensors, metadata, paths=(), alphas=None):
    """A Component of an adapter file.

    Args:
        tensors: name -> TensorInfo; metadata: the file's, str to str; paths: the file.
        alphas: values of the ``alpha`` tensors that could be read, or None.
    """
    path = paths[0] if paths else "adapter"
    experts, strangers = {}, []
    for key, info in tensors.items():
        try:
            found = split_key(path, key)
        except CheckpointError as error:
            strangers.append(str(error))
            continue
        layers = experts.setdefault(found.low_noise, {})
        layers.setdefault(found.layer, {})[found.part] = info
    layers = {layer: parts for half in experts.values() for layer, parts in half.items()}
    dialect, kind = recognise_dialect(tensors), _kind(tensors, layers)
    foreign = sorted(layer for layer in layers if not _WAN_LAYER.match(layer))
    halves = {low: _strength(half, low, metadata, paths, alphas) for low, half in sorted(experts.items())}
    ranks, alphas = (sorted({value for half in halves.values() for value in half[name]}) for name in ("ranks", "alpha"))
    facts = {"paths": tuple(paths), "naming": dialect, **counted(tensors.values())}
    details = {"kind": kind, "ranks": ranks, "targets": _targets(layers), "num_layers_adapted": len(layers)}
    details["alpha"] = alphas
    if len(halves) == 2:
        details["experts"] = dict(zip(EXPERTS, halves.values(), strict=True))
    details |= {name: metadata[name] for name in sorted(metadata) if is_told_of_origin(name)}
    if foreign or (strangers and not layers):
        model = next((name for mark, name in _FOREIGN.items() if any(mark in one for one in tensors)), "another model")
        example = foreign[0] if foreign else next(iter(tensors))
        problem = f"it changes {example}, which no Wan DiT has; it is for {model}: take an adapter made for Wan"
        return Component("adapter", f"{_TITLES[kind]} for {model}", details=details, problems=(problem,), **facts)
    sizes = _base_sizes(layers)
    families = families_of({name: value for name, value in sizes.items() if name != "num_layers"})
    families = [name for name in families if _has_blocks(name, sizes["num_layers"])]
    title = f"{_TITLES[kind]}, rank {', '.join(map(str, ranks)) or 'none'}, of {len(layers)} layers"
    title += ", for each of two experts" if len(halves) == 2 else ""
    return Component(
        "adapter", title, families=tuple(families), sizes=sizes, details=details, problems=tuple(strangers[:1]), **facts
    )


_TITLES = {"lora": "LoRA", "dora": "DoRA", "lokr": "LoKr", "loha": "LoHa", "difference": "differences of weights"}


def _kind(tensors, layers):
    if any("hada_" in name for name in tensors):
        return "loha"
    parts = {part for found in layers.values() for part in found}
    if parts & set(KRONECKER):
        return "lokr"
    if parts & {"magnitude", "dora_scale"}:
        return "dora"
    return "lora" if "down" in parts or "up" in parts else "difference"


def _rank(parts):
    for name, axis in (("down", 0), ("up", 1), ("lokr_w2_b", 0), ("lokr_w1_b", 0)):
        if name in parts and len(parts[name].shape) > axis:
            return parts[name].shape[axis]
    return None


def _shape(parts):
    """(out, in) of the weight that a layer's parts change; None each where they do not say."""
    if "up" in parts and "down" in parts and len(parts["down"].shape) >= 2 and parts["up"].shape:
        return parts["up"].shape[0], parts["down"].shape[1]
    sides = []
    for name in ("lokr_w1", "lokr_w2"):
        rows, columns = parts.get(name) or parts.get(f"{name}_a"), parts.get(name) or parts.get(f"{name}_b")
        if rows is None or columns is None or len(rows.shape) != 2 or len(columns.shape) != 2:
            return None, None
        sides.append((rows.shape[0], columns.shape[1]))
    return sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]


def _base_sizes(layers):
    sizes = {
        "dim": None,
        "ffn_dim": None,
        "image_input": None,
        "num_layers": count_blocks(f"{name}." for name in layers),
    }
    for name, parts in layers.items():
        out, inner = _shape(parts)
        if "_attn." in name or name.endswith("ffn.0"):
            sizes["dim"] = sizes["dim"] or inner
        if name.endswith("ffn.0"):
            sizes["ffn_dim"] = sizes["ffn_dim"] or out
        if name.endswith((".k_img", ".v_img")):
            sizes["image_input"] = True
    return sizes


def _has_blocks(family, num_layers):
    return known_models()[family].dit["num_layers"] >= num_layers


def _targets(layers):
    return sorted({re.sub(r"^blocks\.\d+\.", "", name) for name in layers})


def _strength(layers, low_noise, metadata, paths, alphas):
    """ranks and alpha of the layers of one expert, each value once."""
    ranks = {rank for parts in layers.values() if (rank := _rank(parts)) is not None}
    return {"ranks": sorted(ranks), "alpha": sorted(set(alphas or _stated_alphas(metadata, paths, low_noise)))}


def _stated_alphas(metadata, paths, low_noise):
    """What a file's metadata says of alpha (ours, diffusers'), or PEFT's configuration beside it: of all layers, and of
    single ones."""
    config = paths[0].with_name(PEFT_CONFIG) if paths else None
    packed = _table(metadata.get(DIFFUSERS_METADATA))
    try:
        if packed:
            said = of_transformer(packed, TRANSFORMERS[low_noise], DIFFUSERS_METADATA)
        elif config is not None and config.is_file():
            said = read_json(config, "PEFT's configuration")
        else:
            said = metadata
    except CheckpointError:
        return []
    pattern = said.get("alpha_pattern")
    pattern = pattern if isinstance(pattern, dict) else _table(pattern)
    values = [said.get("lora_alpha", said.get("alpha")), *pattern.values()]
    return [float(value) for value in values if _is_number(value)]


def _table(text):
    try:
        value = json.loads(text) if text else {}
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_number(value):
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
