"""Every naming of adapter files says the same; what is none of them is refused with the reason."""

import json

import pytest
import torch
from safetensors.torch import save_file

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.adapters import FORMAT, read_adapter

DOWN, UP, MAGNITUDE = torch.randn(4, 6), torch.randn(8, 4), torch.rand(8) + 0.5
LAYER = "blocks.0.self_attn.q"
LORA, DORA = ("down", "up"), ("down", "up", "magnitude")

# naming: (keys of down, up, magnitude; shape of the magnitude)
NAMINGS = {
    "released": (
        "{}.lora_A.default.weight", "{}.lora_B.default.weight", "{}.lora_magnitude_vector.default.weight", (8,),
    ),
    "peft_file": (
        "base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight",
        "base_model.model.{}.lora_magnitude_vector", (8,),
    ),
    "peft_other_name": ("{}.lora_A.mine.weight", "{}.lora_B.mine.weight", "{}.lora_magnitude_vector.mine", (8,)),
    "comfyui": (
        "diffusion_model.{}.lora_A.weight", "diffusion_model.{}.lora_B.weight", "diffusion_model.{}.dora_scale", (8, 1),
    ),
    "comfyui_bare": ("diffusion_model.{}.lora_A", "diffusion_model.{}.lora_B", "diffusion_model.{}.dora_scale", (8,)),
    "down_up": ("{}.lora_down.weight", "{}.lora_up.weight", "{}.dora_scale", (8,)),
    "pipeline": ("pipe.dit.{}.lora_A.default.weight", "pipe.dit.{}.lora_B.default.weight",
                 "pipe.dit.{}.lora_magnitude_vector.default.weight", (8,)),
}  # fmt: skip


def file_of(tmp_path, tensors, metadata=None, name="adapter.safetensors"):
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / name, metadata)
    return tmp_path / name


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("parts", [LORA, DORA], ids=["lora", "dora"])
def test_every_naming_reads_the_same(naming, parts, tmp_path):
    down, up, magnitude, shape = NAMINGS[naming]
    tensors = {down.format(LAYER): DOWN, up.format(LAYER): UP}
    if "magnitude" in parts:
        tensors[magnitude.format(LAYER)] = MAGNITUDE.view(shape)
    adapter = read_adapter(file_of(tmp_path, tensors))
    assert adapter.kind == ("dora" if "magnitude" in parts else "lora")
    assert adapter.modules.keys() == {LAYER}
    module = adapter.modules[LAYER]
    assert torch.equal(module.down, DOWN) and torch.equal(module.up, UP) and module.scale == 1.0
    assert torch.equal(module.magnitude, MAGNITUDE) if "magnitude" in parts else module.magnitude is None


def test_differences_name_the_parameter_they_change(tmp_path):
    keys = {"blocks.0.norm3.diff": "blocks.0.norm3.weight", "blocks.0.ffn.0.diff_b": "blocks.0.ffn.0.bias",
            "head.diff_m": "head.modulation"}  # fmt: skip
    adapter = read_adapter(file_of(tmp_path, {f"diffusion_model.{key}": torch.ones(3) for key in keys}))
    assert adapter.kind == "difference" and adapter.differences.keys() == set(keys.values())


def plain(**extra):
    return {f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": UP, **extra}


def test_scale_comes_from_alpha_then_metadata_then_peft_config(tmp_path):
    own = {"format": FORMAT, "kind": "lora", "rank": "4", "alpha": "12"}
    assert read_adapter(file_of(tmp_path, plain(), own)).modules[LAYER].scale == 3.0
    with_alpha = plain(**{f"{LAYER}.alpha": torch.tensor(2.0)})
    assert read_adapter(file_of(tmp_path, with_alpha, own)).modules[LAYER].scale == 0.5
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 16, "r": 4}))
    assert read_adapter(file_of(tmp_path, plain(), name="adapter_model.safetensors")).modules[LAYER].scale == 4.0
    assert read_adapter(file_of(tmp_path, plain(), name="another.safetensors")).modules[LAYER].scale == 1.0


OTHER = "blocks.1.self_attn.q"
BROKEN = {
    "a stranger": (plain(**{f"{LAYER}.hada_w1_a": DOWN}), {}, "hada_w1_a is no adapter key"),
    "plain weights": ({"blocks.0.ffn.0.weight": DOWN}, {}, "blocks.0.ffn.0.weight is no adapter key"),
    "half a pair": ({f"{LAYER}.lora_A.weight": DOWN}, {}, f"{LAYER} has down but no up"),
    "magnitudes alone": ({f"{LAYER}.dora_scale": MAGNITUDE}, {}, "has dora_scale but no down and no up"),
    "ranks that differ": (
        {f"{LAYER}.lora_A.weight": DOWN[:3], f"{LAYER}.lora_B.weight": UP}, {}, r"found \(3, 6\) and \(8, 4\)",
    ),
    "too few magnitudes": (
        plain(**{f"{LAYER}.dora_scale": MAGNITUDE[:5]}), {}, r"expected 8 magnitudes.*found shape \(5,\)",
    ),
    "some magnitudes missing": (
        plain(**{f"{LAYER}.dora_scale": MAGNITUDE, f"{OTHER}.lora_A.weight": DOWN, f"{OTHER}.lora_B.weight": UP}), {},
        f"a DoRA file, yet {OTHER} has no magnitudes",
    ),
    "a key twice": (plain(**{f"diffusion_model.{LAYER}.lora_down.weight": DOWN}), {}, "a second time"),
    "a DoRA without magnitudes": (
        plain(), {"format": FORMAT, "kind": "dora", "rank": "4", "alpha": "4"}, "expected a dora file",
    ),
    "no rank in the metadata": (
        plain(), {"format": FORMAT, "kind": "lora", "alpha": "4"}, "expected numbers as rank and alpha",
    ),
    "alpha of two numbers": (plain(**{f"{LAYER}.alpha": torch.ones(2)}), {}, "expected one number"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_adapter_is_refused(case, tmp_path):
    tensors, metadata, message = BROKEN[case]
    path = file_of(tmp_path, tensors, metadata)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_adapter(path)
    assert str(path) in str(caught.value)
