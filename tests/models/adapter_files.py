"""Adapters for the miniature DiT as the programs of each dialect write them, without wan_alpha's writers."""

import json
from dataclasses import dataclass

import torch
from other_programs import diffusers_name
from safetensors.torch import save_file

LAYERS = [
    f"blocks.{block}.{layer}"
    for block in (0, 1)
    for layer in ("self_attn.q", "self_attn.o", "cross_attn.k", "cross_attn.v", "ffn.0", "ffn.2")
]
# case: (rank, alpha) of every layer, or of those of block 0 and of block 1.
STRENGTHS = {"alpha_is_rank": [(4, 4)] * 2, "alpha_is_not": [(4, 6)] * 2, "uneven": [(4, 8), (3, 1)]}


@dataclass(frozen=True)
class Layer:
    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None

    @property
    def rank(self):
        return self.down.shape[0]


def make_layers(base, kind, strength, seed=3):
    """Layer name -> Layer; magnitudes differ from the rows' norms by a fifth. strength: one of STRENGTHS, or such pairs
    in a tuple."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name in LAYERS:
        rank, alpha = STRENGTHS.get(strength, strength)[int(name.split(".")[1])]
        weight = base[f"{name}.weight"]
        down = torch.randn(rank, weight.shape[1], generator=generator) * 0.2
        up = torch.randn(weight.shape[0], rank, generator=generator) * 0.2
        magnitude = weight.norm(dim=1) * (1 + 0.2 * torch.randn(weight.shape[0], generator=generator))
        layers[name] = Layer(down, up, alpha, magnitude if kind == "dora" else None)
    return layers


def write_wan_alpha(layers, folder, kind):
    tensors = {}
    for name, layer in layers.items():
        tensors |= {f"{name}.lora_A.default.weight": layer.down, f"{name}.lora_B.default.weight": layer.up}
        if layer.magnitude is not None:
            tensors[f"{name}.lora_magnitude_vector.default.weight"] = layer.magnitude
    rank, alpha, ranks, alphas = settings(layers)
    metadata = {"format": "wan_alpha.adapter", "format_version": "1", "kind": kind, "rank": str(rank)}
    metadata |= {"alpha": str(alpha), "rank_pattern": json.dumps(ranks), "alpha_pattern": json.dumps(alphas)}
    return save(tensors, folder / "ours.safetensors", metadata)


def write_peft(layers, folder, kind):
    tensors = {}
    for name, layer in layers.items():
        stem = f"base_model.model.{name}"
        tensors |= {f"{stem}.lora_A.weight": layer.down, f"{stem}.lora_B.weight": layer.up}
        if layer.magnitude is not None:
            tensors[f"{stem}.lora_magnitude_vector"] = layer.magnitude
    rank, alpha, ranks, alphas = settings(layers)
    config = {
        "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "rank_pattern": ranks, "alpha_pattern": alphas,
        "target_modules": list(layers), "use_dora": kind == "dora", "use_rslora": False,
    }  # fmt: skip
    (folder / "peft").mkdir()
    (folder / "peft" / "adapter_config.json").write_text(json.dumps(config))
    save(tensors, folder / "peft" / "adapter_model.safetensors", {"format": "pt"})
    return folder / "peft"


def write_diffusers(layers, folder, kind):
    layers = {diffusers_name(name): layer for name, layer in layers.items()}
    tensors = {}
    for name, layer in layers.items():
        stem = f"transformer.{name}"
        tensors |= {f"{stem}.lora_A.weight": layer.down, f"{stem}.lora_B.weight": layer.up}
        if layer.magnitude is not None:
            tensors[f"{stem}.lora_magnitude_vector"] = layer.magnitude
    rank, alpha, ranks, alphas = settings(layers)
    config = {"r": rank, "lora_alpha": alpha, "rank_pattern": ranks, "alpha_pattern": alphas, "lora_bias": False}
    config |= {"target_modules": list(layers), "use_dora": kind == "dora"}
    text = json.dumps({f"transformer.{key}": value for key, value in config.items()})
    return save(tensors, folder / "pytorch_lora_weights.safetensors", {"format": "pt", "lora_adapter_metadata": text})


def write_comfyui(layers, folder, kind):
    """``magnitude`` goes in as ``dora_scale``: what ComfyUI divides by the base's norms."""
    tensors = {}
    for name, layer in layers.items():
        stem = f"diffusion_model.{name}"
        tensors |= {f"{stem}.lora_down.weight": layer.down, f"{stem}.lora_up.weight": layer.up}
        tensors[f"{stem}.alpha"] = torch.tensor(float(layer.alpha))
        if layer.magnitude is not None:
            tensors[f"{stem}.dora_scale"] = layer.magnitude.view(-1, 1)
    return save(tensors, folder / "comfyui.safetensors")


WRITERS = {"wan-alpha": write_wan_alpha, "peft": write_peft, "diffusers": write_diffusers, "comfyui": write_comfyui}


def settings(layers):
    """(rank and alpha of the first layer, name -> rank of those that differ, the same of alpha)."""
    first = next(iter(layers.values()))
    return (
        first.rank,
        first.alpha,
        {name: layer.rank for name, layer in layers.items() if layer.rank != first.rank},
        {name: layer.alpha for name, layer in layers.items() if layer.alpha != first.alpha},
    )


def save(tensors, path, metadata=None):
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata)
    return path
