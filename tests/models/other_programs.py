"""What other programs make of an adapter file: their reading and their arithmetic, written down plainly.

Each function returns the weights that the program would compute with, under Wan's names, from the base's weights and a
file of its dialect. Nothing of wan_alpha is used.
"""

import json

import torch
from safetensors import safe_open

EPS = torch.finfo(torch.float32).eps
# diffusers' own conversion of Wan checkpoints renames by replacing these, in this order.
DIFFUSERS_RENAMES = (
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("head.modulation", "scale_shift_table"), ("head.head", "proj_out"), ("modulation", "scale_shift_table"),
    ("ffn.0", "ffn.net.0.proj"), ("ffn.2", "ffn.net.2"), ("norm3", "norm2"),
    ("self_attn.q", "attn1.to_q"), ("self_attn.k", "attn1.to_k"), ("self_attn.v", "attn1.to_v"),
    ("self_attn.o", "attn1.to_out.0"), ("self_attn.norm_q", "attn1.norm_q"), ("self_attn.norm_k", "attn1.norm_k"),
    ("cross_attn.q", "attn2.to_q"), ("cross_attn.k", "attn2.to_k"), ("cross_attn.v", "attn2.to_v"),
    ("cross_attn.o", "attn2.to_out.0"), ("cross_attn.norm_q", "attn2.norm_q"), ("cross_attn.norm_k", "attn2.norm_k"),
)  # fmt: skip


def read(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def diffusers_name(name):
    for old, new in DIFFUSERS_RENAMES:
        name = name.replace(old, new)
    return name


def row_norms(weight):
    return weight.norm(dim=1, keepdim=True)


def comfyui_weights(base, path):
    """ComfyUI: every ``diffusion_model.*.weight`` asks for its LoRA; its weight_decompose for dora_scale."""
    tensors, _ = read(path)
    result, used = dict(base), set()

    def take(key):
        used.add(key)
        return tensors[key].float()

    for name, weight in base.items():
        stem = f"diffusion_model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_up.weight" in tensors:
            up, down = take(f"{stem}.lora_up.weight"), take(f"{stem}.lora_down.weight")
            alpha = take(f"{stem}.alpha").item() / down.shape[0] if f"{stem}.alpha" in tensors else 1.0
            update = alpha * (up @ down)
        elif f"{stem}.lokr_w1" in tensors:
            first, scale = take(f"{stem}.lokr_w1"), 1.0
            if f"{stem}.lokr_w2" in tensors:
                second = take(f"{stem}.lokr_w2")
            else:
                right = take(f"{stem}.lokr_w2_b")
                second = take(f"{stem}.lokr_w2_a") @ right
                scale = take(f"{stem}.alpha").item() / right.shape[0]
            update = scale * torch.kron(first, second)
        else:
            continue
        result[name] = weight + update
        if f"{stem}.dora_scale" in tensors:
            scale = take(f"{stem}.dora_scale")
            assert scale.shape == (weight.shape[0], 1), "ComfyUI takes any other shape for something else"
            result[name] = result[name] * (scale / (row_norms(weight) + EPS))
    for name in base:
        layer, _, part = name.rpartition(".")
        kinds = {"weight": f"{layer}.diff", "bias": f"{layer}.diff_b"}
        key = f"diffusion_model.{kinds.get(part, f'{name}.diff')}"
        if key in tensors:
            result[name] = result[name] + take(key)
    assert used == set(tensors), f"ComfyUI would not load {set(tensors) - used}"
    return result


def diffusers_weights(base, path):
    """diffusers: ``transformer.`` keys, LoraConfig(**metadata), PEFT's arithmetic on the transformer's layers."""
    tensors, metadata = read(path)
    config = {
        name.removeprefix("transformer."): value
        for name, value in json.loads(metadata["lora_adapter_metadata"]).items()
    }
    assert config.keys() <= {
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
        "use_dora",
        "lora_bias",
    }
    result, used = dict(base), set()
    for name, weight in base.items():
        layer = diffusers_name(name).removesuffix(".weight")
        if layer not in config["target_modules"] or not name.endswith(".weight"):
            continue
        rank = config["rank_pattern"].get(layer, config["r"])
        scale = config["alpha_pattern"].get(layer, config["lora_alpha"]) / rank
        keys = [f"transformer.{layer}.lora_A.weight", f"transformer.{layer}.lora_B.weight"]
        down, up = (tensors[key].float() for key in keys)
        assert down.shape[0] == rank
        used |= set(keys)
        result[name] = weight + scale * (up @ down)
        if config["use_dora"]:
            used.add(f"transformer.{layer}.lora_magnitude_vector")
            magnitude = tensors[f"transformer.{layer}.lora_magnitude_vector"].float()
            result[name] = result[name] * (magnitude.view(-1, 1) / row_norms(result[name]))
        if config["lora_bias"]:
            used.add(f"transformer.{layer}.lora_B.bias")
            bias = name.replace(".weight", ".bias")
            result[bias] = base[bias] + scale * tensors[f"transformer.{layer}.lora_B.bias"].float()
    assert used == set(tensors), f"diffusers would not load {set(tensors) - used}"
    return result


def released_weights(base, path):
    """The released Wan-Alpha: B*A as it is; it reads no metadata and knows no alpha."""
    return _weights_of_the_release(base, read(path)[0], lambda layer: 1.0)


def trained_weights(base, path):
    """What this project's training wrote: the release's names, alpha and rank in the metadata."""
    tensors, metadata = read(path)
    ranks, alphas = (json.loads(metadata.get(name, "{}")) for name in ("rank_pattern", "alpha_pattern"))

    def scale(layer):
        return float(alphas.get(layer, metadata["alpha"])) / float(ranks.get(layer, metadata["rank"]))

    return _weights_of_the_release(base, tensors, scale)


def _weights_of_the_release(base, tensors, scale):
    result, used = dict(base), set()
    for key in tensors:
        layer = key.removesuffix(".lora_A.default.weight")
        if layer == key:
            continue
        keys = [f"{layer}.lora_A.default.weight", f"{layer}.lora_B.default.weight"]
        down, up = (tensors[name].float() for name in keys)
        used |= set(keys)
        weight = base[f"{layer}.weight"] + scale(layer) * (up @ down)
        magnitude = f"{layer}.lora_magnitude_vector.default.weight"
        if magnitude in tensors:
            used.add(magnitude)
            weight = weight * (tensors[magnitude].float().view(-1, 1) / row_norms(weight))
        result[f"{layer}.weight"] = weight
    assert used == set(tensors)
    return result
