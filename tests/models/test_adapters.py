"""LoRA and DoRA: the released arithmetic, PEFT's forward, saving and loading, merging and unmerging."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.adapters import (
    adapter_row_norms,
    adapter_state_dict,
    add_adapter,
    load_adapter,
    merge_adapter,
    merge_adapter_into,
    save_adapter,
    unmerge_adapter,
)
from wan_alpha.weights.io import read_metadata

TOLERANCE = {"reference": 1e-4, "exact": 1e-5}
WIDTH, HIDDEN = 24, 48


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        for name in "qkvo":
            setattr(self, name, nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        return self.o(self.q(x) + self.k(x) + self.v(x))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = Attention()
        self.ffn = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))


class Network(nn.Module):
    """The network behind the reference values: layers named as in the DiT, without attention proper."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x):
        for block in self.blocks:
            x = x + block.ffn(block.self_attn(x))
        return x


def part(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def reference(reference_dir):
    return load_file(reference_dir / "dora_io.safetensors")


@pytest.fixture
def network(reference):
    network = Network()
    network.load_state_dict(part(reference, "base."))
    return network


def trained(network, path, kind="dora", rank=3, alpha=6, seed=1):
    """Adapt a network with random values, as a training would, and save; returns its output on fixed input."""
    torch.manual_seed(seed)
    parameters = add_adapter(network, kind, rank, alpha)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1 * torch.randn_like(parameter)
    save_adapter(network, path, kind=kind, rank=rank, alpha=alpha, base_sha256="ab" * 32, recipe={"seed": seed})
    return network(fixed_input())


def fixed_input():
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(7))


def test_merge_reproduces_the_released_merge(reference, reference_dir):
    base = part(reference, "base.")
    merged = merge_adapter(base, reference_dir / "dora_adapter.safetensors")
    expected = part(reference, "merged.")
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (merged[name] - tensor).abs().max() <= TOLERANCE["reference"], name
    assert not torch.equal(merged["blocks.0.ffn.0.weight"], base["blocks.0.ffn.0.weight"])


@pytest.mark.parametrize("road", ["injected", "merged"])
def test_adapted_network_reproduces_the_reference(road, network, reference, reference_dir):
    path = reference_dir / "dora_adapter.safetensors"
    if road == "injected":
        add_adapter(network, "dora", rank=4, alpha=4)
        load_adapter(network, path)
    else:
        merge_adapter_into(network, path)
    assert (network(reference["x"]) - reference["y"]).abs().max() <= TOLERANCE["reference"]


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_saved_adapter_equals_the_trained_network(kind, network, reference, tmp_path):
    path = tmp_path / "adapter.safetensors"
    output = trained(network, path, kind)
    fresh = Network()
    fresh.load_state_dict(part(reference, "base."))
    assert (fresh(fixed_input()) - output).abs().max() > 0.05, "the adapter does nothing: the test would prove nothing"
    merged = Network()
    merged.load_state_dict(merge_adapter(part(reference, "base."), path))
    assert (merged(fixed_input()) - output).abs().max() <= TOLERANCE["exact"]
    add_adapter(fresh, kind, rank=3, alpha=6)
    load_adapter(fresh, path)
    assert (fresh(fixed_input()) - output).abs().max() <= TOLERANCE["exact"]


def test_saved_names_and_metadata_are_the_released_ones(network, reference_dir, tmp_path):
    path = tmp_path / "adapter.safetensors"
    trained(network, path)
    assert load_file(path).keys() == load_file(reference_dir / "dora_adapter.safetensors").keys()
    metadata = read_metadata(path)
    assert (metadata["kind"], metadata["rank"], metadata["alpha"]) == ("dora", "3", "6")
    assert metadata["base_sha256"] == "ab" * 32
    assert json.loads(metadata["targets"]) == ["q", "k", "v", "o", "ffn.0", "ffn.2"]
    assert json.loads(metadata["recipe"]) == {"seed": 1}


def test_fresh_adapter_changes_nothing_and_trains_alone(network, reference):
    network.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        before = network(fixed_input().bfloat16())
    parameters = add_adapter(network, "dora", rank=2, alpha=2)
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert {id(p) for p in parameters} == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(parameters) == len(adapter_state_dict(network)) == 2 * 6 * 3
    with torch.autocast("cpu", torch.bfloat16):
        after = network(fixed_input().bfloat16())
    assert torch.equal(after, before)
    after.float().pow(2).mean().backward()
    # While B is zero no gradient reaches A; B and the magnitudes have one from the first step.
    moved = [p for name, p in network.named_parameters() if p.requires_grad and "lora_A" not in name]
    assert all(parameter.grad.abs().max() > 0 for parameter in moved)
    assert {p.grad.dtype for p in parameters} == {torch.float32}


class Casts(TorchDispatchMode):
    """The shapes of what is copied into another dtype."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if operation is torch.ops.aten._to_copy.default:
            self.shapes.append(arguments[0].shape)
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_autocast_casts_an_adapted_layers_input_once_and_changes_no_bit(network, kind):
    layer = network.blocks[0].ffn.to(torch.bfloat16)
    for parameter in add_adapter(layer, kind, rank=2, alpha=2, targets=("0", "2")):
        torch.nn.init.normal_(parameter, std=0.3)
    width = layer[2].base_layer.in_features
    found = []
    for is_ours in (True, False):
        if not is_ours:  # as PEFT has it
            for adapted in (layer[0], layer[2]):
                adapted._forward_pre_hooks.clear()
                adapted.cast_input_dtype_enabled = True
        x = torch.linspace(-1, 1, 5 * layer[0].in_features, dtype=torch.bfloat16).view(1, 5, -1).requires_grad_()
        with Casts() as casts:
            with torch.autocast("cpu", torch.bfloat16):
                output = layer(x)
            output.square().mean().backward()
        assert sum(shape[-2:] == (5, width) for shape in casts.shapes) == (0 if is_ours else 4)
        gradients = [p.grad.clone() for p in (x, *layer.parameters()) if p.grad is not None]
        layer.zero_grad()
        found.append([output, *gradients])
        assert layer(x).dtype == torch.bfloat16, "without autocast too"
    assert len(found[0]) > 5 and all(torch.equal(ours, plain) for ours, plain in zip(*found, strict=True))


def test_a_row_of_zeros_stays_one(network, tmp_path):
    path, name = tmp_path / "adapter.safetensors", "blocks.0.self_attn.q.weight"
    with torch.no_grad():
        network.blocks[0].self_attn.q.weight[3] = 0
    base = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    add_adapter(network, "dora", rank=2, alpha=2)
    save_adapter(network, path, kind="dora", rank=2, alpha=2, base_sha256="ab" * 32)
    output = network(fixed_input())
    output.sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in network.parameters() if tensor.requires_grad)
    assert torch.equal(merge_adapter(base, path)[name][3], torch.zeros(WIDTH))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_unmerge_restores_the_base(kind, scale, network, reference, tmp_path):
    path, base = tmp_path / "adapter.safetensors", part(reference, "base.")
    trained(network, path, kind)
    merged = merge_adapter(base, path, scale)
    restored = unmerge_adapter(merged, path, adapter_row_norms(base, path), scale)
    for name, tensor in base.items():
        assert (restored[name] - tensor).abs().max() <= TOLERANCE["exact"], name


def test_unmerging_a_dora_needs_its_row_norms(reference, reference_dir):
    path = reference_dir / "dora_adapter.safetensors"
    with pytest.raises(CheckpointError, match="row norms of blocks.0.ffn.0.weight"):
        unmerge_adapter(part(reference, "merged."), path)


def test_merge_scale_and_what_is_shared(reference, reference_dir):
    path, base = reference_dir / "dora_adapter.safetensors", part(reference, "base.")
    untouched = {name: tensor.clone() for name, tensor in base.items()}
    nothing, half, full = (merge_adapter(base, path, scale) for scale in (0.0, 0.5, 1.0))
    name = "blocks.1.self_attn.v.weight"
    assert torch.equal(nothing[name], base[name])
    assert torch.allclose(half[name], (base[name] + full[name]) / 2, atol=1e-6)
    assert full["blocks.1.self_attn.v.bias"] is base["blocks.1.self_attn.v.bias"]
    assert all(torch.equal(base[name], tensor) for name, tensor in untouched.items())
    assert merge_adapter({k: v.bfloat16() for k, v in base.items()}, path)[name].dtype == torch.bfloat16


def test_distillation_lora_stacks_on_a_merged_dora(network, reference, reference_dir, tmp_path):
    name = "blocks.0.self_attn.q"
    down, up = torch.randn(2, WIDTH), torch.randn(WIDTH, 2)
    weight_difference, bias_difference = torch.randn(WIDTH, HIDDEN), torch.randn(WIDTH)
    path = tmp_path / "distill.safetensors"
    save_file(
        {
            f"diffusion_model.{name}.lora_down.weight": down,
            f"diffusion_model.{name}.lora_up.weight": up,
            f"diffusion_model.{name}.alpha": torch.tensor(1.0),
            f"diffusion_model.{name}.diff_b": bias_difference,
            "diffusion_model.blocks.1.ffn.2.diff": weight_difference,
        },
        path,
    )
    merged = merge_adapter(part(reference, "base."), reference_dir / "dora_adapter.safetensors")
    stacked = merge_adapter(merged, path, scale=2.0)
    expected = {
        f"{name}.weight": 2.0 * (1 / 2) * up @ down,
        f"{name}.bias": 2.0 * bias_difference,
        "blocks.1.ffn.2.weight": 2.0 * weight_difference,
    }
    for key, tensor in merged.items():
        assert torch.allclose(stacked[key] - tensor, expected.get(key, torch.zeros(())), atol=1e-5), key
    in_place = Network()
    in_place.load_state_dict(merged)
    merge_adapter_into(in_place, path, scale=2.0)
    assert all(torch.equal(tensor, stacked[key]) for key, tensor in in_place.state_dict().items())


def test_an_adapter_for_another_base_is_refused_and_changes_nothing(network, reference_dir, tmp_path):
    adapter = load_file(reference_dir / "dora_adapter.safetensors")
    cases = {
        "found blocks.7.": {key.replace("blocks.1.", "blocks.7."): tensor for key, tensor in adapter.items()},
        r"expected shape \(48, 24\) as in the base, found \(48, 20\)": {
            key: tensor[:, :20].contiguous() if key == "blocks.0.ffn.0.lora_A.default.weight" else tensor
            for key, tensor in adapter.items()
        },
    }
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for message, tensors in cases.items():
        path = tmp_path / "other.safetensors"
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match=message) as caught:
            merge_adapter(network.state_dict(), path)
        assert str(path) in str(caught.value)
        with pytest.raises(CheckpointError, match=message):
            merge_adapter_into(network, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_load_refuses_another_kind_scale_rank_or_layers(network, reference, tmp_path):
    def file(name, **settings):
        source = Network()
        trained(source, tmp_path / name, **settings)
        return tmp_path / name

    add_adapter(network, "dora", rank=3, alpha=6)
    cases = {
        "expected a dora file, as the model was prepared for, found lora": file("lora.safetensors", kind="lora"),
        "expected alpha/rank = 2, found 1": file("scale.safetensors", alpha=3),
        r"expected shape \(3, 24\), found \(6, 24\)": file("rank.safetensors", rank=6, alpha=12),
    }
    full, half = file("full.safetensors"), tmp_path / "half.safetensors"
    without_q = {name: tensor for name, tensor in load_file(full).items() if ".q." not in name}
    save_file(without_q, half, read_metadata(full))
    cases["without blocks.0.self_attn.q"] = half
    for message, path in cases.items():
        with pytest.raises(CheckpointError, match=message):
            load_adapter(network, path)
    with pytest.raises(CheckpointError, match="add_adapter comes first"):
        load_adapter(Network(), tmp_path / "full.safetensors")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "dola"}, "choose one of dora, lora"),
        ({"rank": 0}, "give 1 or more"),
        ({"targets": ("q", "ffn.1")}, "ffn.1 name no linear layer"),
        ({"targets": ()}, "name no linear layer"),
    ],
)
def test_impossible_adapters_are_refused(settings, message, network):
    with pytest.raises(ConfigError, match=message):
        add_adapter(network, **settings)


def test_a_second_adapter_is_refused(network):
    add_adapter(network, rank=2, alpha=2)
    with pytest.raises(ConfigError, match="carries an adapter already"):
        add_adapter(network, rank=2, alpha=2)
