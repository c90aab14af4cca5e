"""Merging into a file: the numbers of the merge in memory, one tensor at a time, and every mismatch named."""

import json

import pytest
import torch
from adapter_files import LAYERS, WRITERS, make_layers, save
from miniature_wan import DIT_SIZES, make_dit, write_wan_folder
from other_programs import comfyui_weights, diffusers_name, read
from safetensors.torch import load_file
from wan_layouts import LAYOUTS

from wan_alpha.cli.main import main
from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.adapters import merge_adapter
from wan_alpha.models.merge import merge_files
from wan_alpha.models.wan import load_dit
from wan_alpha.stages.dit_exports import weights_sha256
from wan_alpha.weights.base_weights import BaseWeights
from wan_alpha.weights.io import read_metadata

TOLERANCE = 1e-6
CHANGED = {f"{layer}.weight" for layer in LAYERS}


@pytest.fixture(scope="module")
def base():
    return make_dit().state_dict()


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return write_wan_folder(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def dora(base, tmp_path_factory):
    return WRITERS["wan-alpha"](make_layers(base, "dora", "uneven"), tmp_path_factory.mktemp("dora"), "dora")


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        torch.testing.assert_close(found[name], tensor, atol=TOLERANCE, rtol=0, msg=name)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_sharded_base_becomes_one_file_that_loads(scale, base, base_folder, dora, tmp_path, capsys):
    output = tmp_path / "merged.safetensors"
    assert main(["merge", str(base_folder), str(dora), str(output), "--scale", str(scale)]) == 0
    assert f"{len(CHANGED)} of {len(base)} tensors changed" in capsys.readouterr().out
    merged = load_file(output)
    close(merged, merge_adapter(base, dora, scale))
    assert {name for name in base if not torch.equal(merged[name], base[name])} == CHANGED
    # The number of heads is in no shape, and no config.json lies beside the new file.
    assert load_dit([output]).blocks[0].self_attn.num_heads == DIT_SIZES["num_heads"]
    assert read_metadata(output)["modelspec.merged_from"].endswith(", ours")


NAMINGS = {
    "comfyui": lambda name: f"model.diffusion_model.{name}",
    "diffusers": diffusers_name,
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_base_keeps_its_names_and_dtypes(naming, base, dora, tmp_path):
    rename = NAMINGS[naming]
    own = {rename(name): tensor.bfloat16() if "ffn" in name else tensor for name, tensor in base.items()}
    path = save(own, tmp_path / "base.safetensors", {"num_heads": "4"})
    merge_files(path, dora, tmp_path / "out.safetensors")
    halved = {name: own[rename(name)] for name in base}
    expected = {rename(name): tensor for name, tensor in merge_adapter(halved, dora).items()}
    close(load_file(tmp_path / "out.safetensors"), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_base_in_any_layout(layout, base, dora, tmp_path):
    """One DiT in every layout: each becomes a file with the same weights, under the layout's own names."""
    folder = tmp_path / "wan"
    folder.mkdir()
    merge_files(LAYOUTS[layout](folder), dora, tmp_path / "out.safetensors")
    merged = BaseWeights(tmp_path / "out.safetensors")
    close({name: merged[name] for name in base}, merge_adapter(base, dora))
    assert load_dit([tmp_path / "out.safetensors"]).blocks[0].self_attn.num_heads == DIT_SIZES["num_heads"]


def test_a_pickled_base_and_comfyuis_own_norm(base, tmp_path):
    torch.save(base, tmp_path / "base.pth")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 4}))
    adapter = WRITERS["comfyui"](make_layers(base, "dora", "uneven"), tmp_path, "dora")
    merge_files(tmp_path / "base.pth", adapter, tmp_path / "out.safetensors", dora_norm="base")
    expected = comfyui_weights(base, adapter)
    for name, tensor in load_file(tmp_path / "out.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], atol=TOLERANCE, rtol=0)


def test_one_tensor_at_a_time(base, base_folder, dora, tmp_path, monkeypatch):
    """Whatever is read is given up before the next is read: never two weights, let alone two models."""
    import weakref

    alive, most = [], 0
    original = BaseWeights.__getitem__

    def counting(self, name):
        nonlocal most
        tensor = original(self, name)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(one() is not None for one in alive))
        return tensor

    monkeypatch.setattr(BaseWeights, "__getitem__", counting)
    stages = []
    merge_files(base_folder, dora, tmp_path / "out.safetensors", callback=lambda *state: stages.append(state))
    assert len(alive) == len(base) and most <= 2
    assert stages[0] == ("merging", 1, len(base)) and stages[-1] == ("merging", len(base), len(base))


def test_the_base_that_it_was_trained_on_is_known_again(base, base_folder, tmp_path, capsys):
    tensors, metadata = read(WRITERS["wan-alpha"](make_layers(base, "lora", "alpha_is_rank"), tmp_path, "lora"))
    for name, sha256, expected in (("same", weights_sha256(make_dit()), True), ("other", "ab" * 32, False)):
        path = save(tensors, tmp_path / f"{name}.safetensors", metadata | {"base_sha256": sha256})
        assert merge_files(base_folder, path, tmp_path / "out.safetensors").is_same_base is expected
    assert main(["merge", str(base_folder), str(path), str(tmp_path / "out.safetensors")]) == 0
    assert "trained on other weights" in capsys.readouterr().out


def narrow(tensors):
    tensors["blocks.0.cross_attn.k.lora_A.default.weight"] = torch.ones(4, 40)


def deeper(tensors):
    for half in ("A", "B"):
        name = f"blocks.{{}}.ffn.2.lora_{half}.default.weight"
        tensors[name.format(7)] = tensors.pop(name.format(1))


MISFITS = {
    "another width": (
        narrow,
        r"blocks.0.cross_attn.k.weight: expected shape \(48, 48\).*found \(48, 40\).*another base",
    ),
    "more blocks": (deeper, "found blocks.7.ffn.2.weight, which it has not; is the adapter for another base model"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_an_adapter_for_another_base_is_refused_by_its_first_layer(case, base, base_folder, tmp_path):
    change, message = MISFITS[case]
    tensors, metadata = read(WRITERS["wan-alpha"](make_layers(base, "lora", "alpha_is_rank"), tmp_path, "lora"))
    change(tensors)
    path = save(tensors, tmp_path / "misfit.safetensors", metadata)
    with pytest.raises(CheckpointError, match=message) as caught:
        merge_files(base_folder, path, tmp_path / "out.safetensors")
    assert str(path) in str(caught.value) and not (tmp_path / "out.safetensors").exists()


def test_bases_that_are_none(base, base_folder, dora, tmp_path):
    quantised = base | {"blocks.0.ffn.0.weight": torch.ones(64, 48, dtype=torch.int8)}
    scaled = base | {"blocks.0.ffn.0.scale_weight": torch.ones(1)}
    cases = {
        "quantised": (quantised, "blocks.0.ffn.0.weight: quantised weights cannot take an adapter"),
        "scaled": (scaled, "scale_weight: quantised weights"),
        "another model": (
            {"token_embedding.weight": torch.ones(3)},
            "expected a Wan DiT, found no patch_embedding.weight",
        ),
    }
    for name, (tensors, message) in cases.items():
        path = save(tensors, tmp_path / f"{name}.safetensors")
        with pytest.raises(CheckpointError, match=message):
            merge_files(path, dora, tmp_path / "out.safetensors")
    path = save(base, tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=r"cut.safetensors: (not a readable safetensors file|truncated)"):
        merge_files(path, dora, tmp_path / "out.safetensors")
    shard = next(base_folder.glob("*.safetensors"))
    for output, message in ((tmp_path / "out.bin", "ends with .safetensors"), (shard, "is the base itself")):
        with pytest.raises(ConfigError, match=message):
            merge_files(base_folder, dora, output)


def test_two_experts_take_one_adapter_each(base, dora, tmp_path):
    for number, expert in enumerate(("high_noise", "low_noise")):
        folder = tmp_path / f"{expert}_model"
        folder.mkdir()
        save(make_dit(number).state_dict(), folder / "diffusion_pytorch_model.safetensors", {"num_heads": "4"})
    with pytest.raises(CheckpointError, match="holds two experts.*--expert high_noise or low_noise"):
        merge_files(tmp_path, dora, tmp_path / "out.safetensors")
    merge_files(tmp_path, dora, tmp_path / "out.safetensors", expert="low_noise")
    close(load_file(tmp_path / "out.safetensors"), merge_adapter(make_dit(1).state_dict(), dora))
