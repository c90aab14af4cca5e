"""Adapters written in each dialect: the same numbers under another program's names, or a refusal with the reason.

=============  ==================================  =================================================================
dialect        what is written                     what it holds
=============  ==================================  =================================================================
wan-alpha      one file                            LoRA, DoRA; each layer's factor folded into B
peft           a folder: adapter_model, _config    LoRA, DoRA, bias differences of LoRA layers, LoKr of PEFT's shapes
diffusers      one file, or its usual name in a    LoRA, DoRA, bias differences of LoRA layers; PEFT's configuration in
               folder                              the metadata
comfyui        one file                            LoRA, DoRA, LoKr, differences; alpha as a tensor
=============  ==================================  =================================================================
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.weights.adapter_card import PREFIX, SPEC, own_metadata
from wan_alpha.weights.adapter_keys import DIALECTS
from wan_alpha.weights.adapter_parts import Kronecker
from wan_alpha.weights.adapter_scale import DIFFUSERS_METADATA, PEFT_CONFIG, PEFT_STEM
from wan_alpha.weights.adapters import FORMAT, FORMAT_VERSION, Adapter, scaled_exactly
from wan_alpha.weights.dit_names import to_diffusers
from wan_alpha.weights.io import replacing, save_safetensors
from wan_alpha.weights.peft_lokr import lokr_config

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
# LightX2V's diff_m is no key of ComfyUI's: it asks for a difference of any parameter under the parameter's name.
_COMFYUI_DIFFERENCES = {"weight": "diff", "bias": "diff_b", "modulation": "modulation.diff"}
# Said anew, or true of the file that was read alone.
_NOT_KEPT = {
    "format", "format_version", "kind", "rank", "alpha", "rank_pattern", "alpha_pattern", "targets", "base_sha256",
    "recipe", "recipe_sha256", "trigger_words", "tokens", DIFFUSERS_METADATA, "sshs_model_hash", "sshs_legacy_hash",
}  # fmt: skip


def write_dialect(adapter: Adapter, path, dialect, dtype=None) -> list[Path]:
    """Write an adapter as another program has it.

    Args:
        adapter: from ``read_adapter``. Its magnitudes must be what the dialect divides as they are divided, see
            ``Adapter.dora_norm``: all but comfyui know "adapted" only.
        path: a file, or a folder for peft; see the table above.
        dialect: one of DIALECTS.
        dtype: of the tensors; None = as they are, but float32 for a B into which the factor goes with rounding.

    Returns:
        the files.

    Raises:
        CheckpointError: the dialect cannot hold what the adapter holds.
        ConfigError: an unknown dialect, or a path that is none for it.
    """
    if dialect not in DIALECTS:
        raise ConfigError(f"dialect {dialect!r} is unknown: choose one of {', '.join(DIALECTS)}")
    if adapter.kind == "dora" and adapter.dora_norm != "adapted" and dialect != "comfyui":
        raise CheckpointError(
            f"{adapter.path}: its magnitudes are for ComfyUI's norm, which {dialect} does not know; give the base "
            "model to bring them back"
        )
    if dialect == "wan-alpha":
        adapter = _folded(adapter)
    return _WRITERS[dialect](_in_dtype(adapter, dtype), Path(path))


def _write_own(adapter, path):
    _refuse_differences(adapter, "wan-alpha", allowed_bias=False)
    _refuse_lokr(adapter, "wan-alpha", "`wan-alpha generate` and `merge` read the file as it is")
    tensors = _pairs(adapter, "{}", ".default.weight", ".lora_magnitude_vector.default.weight")
    rank, alpha, ranks, alphas = _common(adapter, lambda layer: layer)
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": adapter.kind, "rank": rank, "alpha": alpha}
    patterns = {"rank_pattern": ranks, "alpha_pattern": alphas}
    metadata |= {name: values for name, values in patterns.items() if values} | {"targets": _targets(adapter)}
    return _save(adapter, tensors, _file(path, "adapter.safetensors"), metadata, prefix="")


def _write_peft(adapter, path):
    if path.suffix in (".safetensors", ".bin"):
        raise ConfigError(f"{path}: PEFT keeps an adapter in a folder; give a name without {path.suffix}")
    if adapter.kind == "lokr":
        _refuse_differences(adapter, "peft", allowed_bias=False)
        tensors, config = lokr_config(adapter)
        tensors = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    else:
        tensors, config = _lora_config(adapter, "peft", lambda layer: layer)
        tensors = _pairs(adapter, "base_model.model.{}", ".weight", ".lora_magnitude_vector") | {
            f"base_model.model.{name}": tensor for name, tensor in tensors.items()
        }
    usual = {"task_type": None, "base_model_name_or_path": None, "bias": "none", "inference_mode": True}
    if adapter.kind == "lokr":
        del usual["bias"]
    written = _save(adapter, tensors, path / f"{PEFT_STEM}.safetensors", {"format": "pt"})
    with replacing(path / PEFT_CONFIG) as partial:
        partial.write_text(json.dumps(usual | config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return [*written, path / PEFT_CONFIG]


def _write_diffusers(adapter, path):
    _refuse_lokr(adapter, "diffusers", "diffusers loads LoRA and DoRA only; merge it into the base instead")

    def renamed(layer):
        name = to_diffusers(layer)
        if name is None:
            raise CheckpointError(f"{adapter.path}: {layer}: diffusers' Wan transformer has no such layer")
        return name

    biases, config = _lora_config(adapter, "diffusers", renamed)
    own = replace(adapter, modules={renamed(layer): module for layer, module in adapter.modules.items()})
    tensors = _pairs(own, "transformer.{}", ".weight", ".lora_magnitude_vector")
    tensors |= {f"transformer.{name}": tensor for name, tensor in biases.items()}
    config = {f"transformer.{name}": value for name, value in config.items() if name != "peft_type"}
    metadata = {"format": "pt", DIFFUSERS_METADATA: json.dumps(config, indent=2, sort_keys=True)}
    return _save(adapter, tensors, _file(path, DIFFUSERS_FILE), metadata, implementation="diffusers")


def _write_comfyui(adapter, path):
    tensors = {}
    for layer, module in adapter.modules.items():
        name = f"diffusion_model.{layer}"
        if isinstance(module, Kronecker):
            factors = dict(module.factors)
            if module.rank is None:
                # Without a rank ComfyUI does not look at alpha.
                factors["lokr_w1"] = scaled_exactly(factors["lokr_w1"], module.scale)
            tensors |= {f"{name}.{part}": tensor for part, tensor in factors.items()}
        else:
            tensors |= {f"{name}.lora_down.weight": module.down, f"{name}.lora_up.weight": module.up}
        if module.rank is not None:
            tensors[f"{name}.alpha"] = torch.tensor(float(_alpha(module)))
        if module.magnitude is not None:
            tensors[f"{name}.dora_scale"] = module.magnitude.view(-1, *[1] * (len(module.shape) - 1))
    for parameter, difference in adapter.differences.items():
        layer, _, part = parameter.rpartition(".")
        tensors[f"diffusion_model.{layer}.{_COMFYUI_DIFFERENCES[part]}"] = difference
    metadata = {"format": "pt"}
    if any(module.magnitude is not None for module in adapter.modules.values()):
        metadata[f"{PREFIX}dora_norm"] = adapter.dora_norm
    return _save(adapter, tensors, _file(path, "adapter.safetensors"), metadata)


_WRITERS = {
    "wan-alpha": _write_own,
    "peft": _write_peft,
    "diffusers": _write_diffusers,
    "comfyui": _write_comfyui,
}


def _pairs(adapter, name, weight, magnitude):
    tensors = {}
    for layer, module in adapter.modules.items():
        stem = name.format(layer)
        tensors |= {f"{stem}.lora_A{weight}": module.down, f"{stem}.lora_B{weight}": module.up}
        if module.magnitude is not None:
            tensors[stem + magnitude] = module.magnitude
    return tensors


def _lora_config(adapter, dialect, renamed):
    """(the layers' biases under PEFT's names, PEFT's LoraConfig as a dict)."""
    _refuse_differences(adapter, dialect, allowed_bias=adapter.kind == "lora")
    has_bias = bool(adapter.differences)
    biases = {}
    for layer, module in adapter.modules.items() if has_bias else ():
        difference = adapter.differences.get(f"{layer}.bias")
        if difference is None:
            # PEFT has a bias in every layer or in none.
            biases[f"{renamed(layer)}.lora_B.bias"] = torch.zeros(module.shape[0], dtype=module.up.dtype)
        else:
            biases[f"{renamed(layer)}.lora_B.bias"] = scaled_exactly(difference, 1 / module.scale)
    rank, alpha, ranks, alphas = _common(adapter, renamed)
    return biases, {
        "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "rank_pattern": ranks, "alpha_pattern": alphas,
        "target_modules": sorted(map(renamed, adapter.modules)), "use_dora": adapter.kind == "dora",
        "lora_bias": has_bias,
    }  # fmt: skip


def _common(adapter, renamed):
    """(rank and alpha of most layers, name -> rank of the others, name -> alpha of the others)."""
    ranks = {renamed(layer): module.rank for layer, module in adapter.modules.items()}
    alphas = {renamed(layer): _alpha(module) for layer, module in adapter.modules.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return (
        rank,
        alpha,
        {name: value for name, value in ranks.items() if value != rank},
        {name: value for name, value in alphas.items() if value != alpha},
    )


def _alpha(module):
    # alpha / rank * rank misses alpha by a rounding where the rank is no power of two.
    alpha = float(f"{module.scale * module.rank:.12g}")
    return int(alpha) if alpha.is_integer() else alpha


def _targets(adapter):
    """Ends of the layers' names, without the block: what a training would be given."""
    return sorted({layer.split(".", 2)[2] if layer.startswith("blocks.") else layer for layer in adapter.modules})


def _refuse_differences(adapter, dialect, allowed_bias):
    if not adapter.modules:
        raise CheckpointError(f"{adapter.path}: holds differences alone, which only comfyui files hold")
    for name in adapter.differences:
        layer, _, part = name.rpartition(".")
        if not (allowed_bias and part == "bias" and layer in adapter.modules):
            raise CheckpointError(
                f"{adapter.path}: {name} is a difference that is added to a weight as it stands, and {dialect} files "
                "hold none; convert to comfyui, or merge the adapter into its base"
            )


def _refuse_lokr(adapter, dialect, way_out):
    if any(isinstance(module, Kronecker) for module in adapter.modules.values()):
        raise CheckpointError(f"{adapter.path}: a LoKr, which {dialect} files do not hold; {way_out}")


def _folded(adapter):
    """The same adapter with s*B for B and 1 for s: the released program adds B*A as it is, and reads no metadata."""
    modules = {
        layer: module
        if isinstance(module, Kronecker)
        else replace(module, up=scaled_exactly(module.up, module.scale), scale=1.0)
        for layer, module in adapter.modules.items()
    }
    return replace(adapter, modules=modules)


def _in_dtype(adapter, dtype):
    if dtype is None:
        return adapter

    def cast(module):
        if isinstance(module, Kronecker):
            return replace(module, factors={name: tensor.to(dtype) for name, tensor in module.factors.items()})
        return replace(module, down=module.down.to(dtype), up=module.up.to(dtype))

    modules = {layer: cast(module) for layer, module in adapter.modules.items()}
    modules = {
        layer: module if module.magnitude is None else replace(module, magnitude=module.magnitude.to(dtype))
        for layer, module in modules.items()
    }
    differences = {name: tensor.to(dtype) for name, tensor in adapter.differences.items()}
    return replace(adapter, modules=modules, differences=differences)


def _file(path, usual):
    return path if path.suffix == ".safetensors" else path / usual


def _save(adapter, tensors, path, metadata, prefix=PREFIX, **options):
    card = adapter.card
    card = replace(card, title=card.title or adapter.path.stem)
    kept = {
        name: value
        for name, value in adapter.metadata.items()
        if name not in _NOT_KEPT and not name.startswith((SPEC, PREFIX))
    }
    save_safetensors(tensors, path, kept | own_metadata(card, tensors, adapter.kind, prefix, **options) | metadata)
    return [path]
