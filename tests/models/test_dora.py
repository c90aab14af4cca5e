"""The factored DoRA: PEFT's numbers and gradients, the merge's numbers, neutral at the start, no dense product."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.dora import DoraLinearLayer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from wan_alpha.models.adapters import adapter_state_dict, add_adapter, load_adapter, merge_adapter, save_adapter
from wan_alpha.models.dora import FactoredDoraLinear, factored_row_norms, squared_row_norms, use_factored_dora

# "bfloat16": two roundings of 2^-8 in each of two layers; "norms": relative, of a norm over a bfloat16 weight.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "norms": 5e-4}
WIDTH, HIDDEN = 24, 40
RANK, ALPHA = 4, 12
TARGETS = ("up", "down")


class Pair(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN, bias), nn.Linear(HIDDEN, WIDTH, bias)

    def forward(self, x):
        return self.down(torch.sin(self.up(x)))


def make_base(bias=True, seed=0):
    torch.manual_seed(seed)
    return Pair(bias)


def with_adapter(base, rank=RANK, alpha=ALPHA, scale=0.3):
    """Adapted, and moved as a training moves it: B away from zero, magnitudes away from the norms."""
    parameters = add_adapter(base, "dora", rank, alpha, TARGETS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return base


def fixed_input(seed=2):
    return torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(seed))


def magnitude_of(layer):
    return layer.lora_magnitude_vector["default"]


def save(network, path):
    save_adapter(network, path, kind="dora", rank=RANK, alpha=ALPHA, base_sha256="ab" * 32, targets=TARGETS)


def output_and_gradients(network, x):
    x = x.clone().requires_grad_()
    output = network(x)
    output.square().mean().backward()
    names = [*adapter_state_dict(network)]
    return output.detach(), {"x": x.grad, **{name: network.get_parameter(name).grad for name in names}}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rank", "alpha"), [(4, 4), (4, 12), (3, 1)])
def test_numbers_and_gradients_are_pefts(bias, rank, alpha):
    ours, theirs = with_adapter(make_base(bias), rank, alpha), make_base(bias)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS), use_dora=True), theirs)
    assert type(magnitude_of(ours.up)) is FactoredDoraLinear and type(magnitude_of(theirs.up)) is DoraLinearLayer
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    output, gradients = output_and_gradients(ours, fixed_input())
    expected, expected_gradients = output_and_gradients(theirs, fixed_input())
    assert (make_base(bias)(fixed_input()) - expected).abs().max() > 0.1, "the adapter does nothing"
    torch.testing.assert_close(output, expected, atol=TOLERANCE["float32"], rtol=0)
    assert gradients.keys() == expected_gradients.keys() and len(gradients) == 7
    for name, gradient in expected_gradients.items():
        assert gradient.abs().max() > 1e-3, name
        torch.testing.assert_close(gradients[name], gradient, atol=TOLERANCE["float32"], rtol=0, msg=name)


@pytest.mark.parametrize("has_base_result", [True, False])
def test_the_layer_answers_every_call_of_pefts(has_base_result):
    """Without the base's output where dropout came between, and without an adapter's name in older releases."""
    base = nn.Linear(WIDTH, HIDDEN)
    ours, theirs = FactoredDoraLinear(base), DoraLinearLayer(fan_in_fan_out=False)
    lora_a, lora_b = nn.Linear(WIDTH, RANK, bias=False), nn.Linear(RANK, HIDDEN, bias=False)
    theirs.weight = nn.Parameter(ours.weight.detach() + 0.2)
    ours.load_state_dict(theirs.state_dict())
    x = fixed_input()
    settings = {"lora_A": lora_a, "lora_B": lora_b, "scaling": 1.5, "base_layer": base}
    settings["base_result"] = base(x) if has_base_result else None
    torch.testing.assert_close(ours(x, **settings), theirs(x, **settings), atol=TOLERANCE["float32"], rtol=0)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_with_dropout_it_is_pefts_too(dropout):
    networks = []
    for is_factored in (True, False):
        network = make_base()
        config = LoraConfig(r=RANK, target_modules=list(TARGETS), use_dora=True, lora_dropout=dropout)
        torch.manual_seed(3)
        inject_adapter_in_model(config, network)
        if is_factored:
            use_factored_dora(network)
        networks.append(network.train())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in networks[0].parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator) * parameter.requires_grad
    networks[1].load_state_dict(networks[0].state_dict())
    found = []
    for network in networks:
        torch.manual_seed(4)
        found.append(output_and_gradients(network, fixed_input()))
    torch.testing.assert_close(*found, atol=TOLERANCE["float32"], rtol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_the_adapted_network_equals_the_merged_one(bias, tmp_path):
    network = with_adapter(make_base(bias))
    save(network, tmp_path / "adapter.safetensors")
    merged = make_base(bias)
    merged.load_state_dict(merge_adapter(merged.state_dict(), tmp_path / "adapter.safetensors"))
    torch.testing.assert_close(network(fixed_input()), merged(fixed_input()), atol=TOLERANCE["float32"], rtol=0)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_changes_no_bit(dtype, autocast):
    base, x = make_base().to(dtype), fixed_input().to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        before = base(x)
        add_adapter(base, "dora", RANK, ALPHA, TARGETS)
        assert torch.equal(base(x), before)
    assert torch.equal(magnitude_of(base.up).weight, torch.linalg.vector_norm(base.up.weight.float(), dim=1))


def train(network, num_steps=5, checkpointing=False):
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0)
    x, losses = fixed_input().bfloat16().requires_grad_(), []
    for _ in range(num_steps):
        with torch.autocast("cpu", torch.bfloat16):
            output = checkpoint(network, x, use_reentrant=False) if checkpointing else network(x)
        loss = (output.float() - 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in parameters)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_bfloat16_base_trains_saves_reloads_and_merges(tmp_path):
    network = make_base().bfloat16()
    add_adapter(network, "dora", RANK, ALPHA, TARGETS)
    start = {name: tensor.clone() for name, tensor in adapter_state_dict(network).items()}
    checkpointed = copy.deepcopy(network)
    losses = train(network)
    assert losses[-1] < 0.8 * losses[0]
    assert train(checkpointed, checkpointing=True) == losses
    for name, tensor in adapter_state_dict(network).items():
        assert tensor.dtype == torch.float32 and not torch.equal(tensor, start[name]), name

    path = tmp_path / "adapter.safetensors"
    save(network, path)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(fixed_input())
        again = make_base().bfloat16()
        add_adapter(again, "dora", RANK, ALPHA, TARGETS)
        load_adapter(again, path)
        assert torch.equal(again(fixed_input()), output)
        merged = make_base().bfloat16()
        before = merged(fixed_input())
        merged.load_state_dict(merge_adapter(merged.state_dict(), path))
        error = (merged(fixed_input()) - output).float().abs().max()
    assert error <= TOLERANCE["bfloat16"] * output.abs().max()
    assert (before - output).abs().max() > 5 * error, "the adapter does nothing: the test would prove nothing"


@pytest.mark.parametrize("move", [lambda network: network.bfloat16(), lambda network: network.double()])
def test_no_change_of_dtype_rounds_magnitudes_or_norms(move):
    network = with_adapter(make_base())
    expected = network(fixed_input()).detach()
    magnitude, norm2 = (tensor.detach().clone() for tensor in vars_of(network.up))
    move(network)
    assert all(map(torch.equal, vars_of(network.up), (magnitude, norm2)))
    assert {tensor.dtype for tensor in vars_of(network.up)} == {torch.float32}
    found = network(fixed_input().to(network.up.base_layer.weight.dtype))
    assert (found - expected).abs().max() <= TOLERANCE["bfloat16"] * expected.abs().max()


def vars_of(layer):
    return magnitude_of(layer).weight, magnitude_of(layer).base_norm2


def test_a_move_to_another_device_takes_magnitudes_and_norms_along():
    network = with_adapter(make_base()).to("meta", torch.bfloat16)
    assert {(tensor.device.type, tensor.dtype) for tensor in vars_of(network.up)} == {("meta", torch.float32)}


def test_norms_follow_a_base_that_is_loaded_later():
    trained, fresh = with_adapter(make_base(seed=5)), make_base(seed=6)
    add_adapter(fresh, "dora", RANK, ALPHA, TARGETS)
    assert not any("base_norm2" in name for name in trained.state_dict())
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(fixed_input()), trained(fixed_input()))
    # A checkpoint of the adapter alone leaves the norms as they are.
    again = make_base(seed=5)
    add_adapter(again, "dora", RANK, ALPHA, TARGETS)
    again.load_state_dict(adapter_state_dict(trained), strict=False)
    assert torch.equal(again(fixed_input()), trained(fixed_input()))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, TOLERANCE["float32"]), (torch.bfloat16, TOLERANCE["norms"])]
)
@pytest.mark.parametrize("size", [0.0, 0.05, 2.0])
def test_row_norms_are_those_of_the_sum(dtype, tolerance, size):
    generator = torch.Generator().manual_seed(3)
    weight, down, up = (torch.randn(shape, generator=generator) for shape in ((96, 64), (8, 64), (96, 8)))
    weight = weight.to(dtype)
    up = size * (up + 0.3 * weight.float() @ down.T)  # in part along the weight, so that the cross term matters
    expected = torch.linalg.vector_norm(weight.double() + 0.7 * up.double() @ down.double(), dim=1)
    found = factored_row_norms(weight, squared_row_norms(weight), down.requires_grad_(), up.requires_grad_(), 0.7)
    assert found.dtype == torch.float32 and not found.requires_grad
    assert ((found - expected) / expected).abs().max() <= tolerance


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation made."""

    num_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.num_elements = max(self.num_elements, result.numel())
        return result


@pytest.mark.parametrize("is_factored", [True, False])
def test_nothing_of_the_weights_size_is_made(is_factored):
    network = nn.ModuleDict({"up": nn.Linear(WIDTH, HIDDEN)})
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["up"], use_dora=True), network)
    if is_factored:
        use_factored_dora(network)
    with LargestTensor() as largest, torch.no_grad():
        network["up"](torch.ones(3, WIDTH))
    assert (largest.num_elements < WIDTH * HIDDEN) == is_factored
