"""A quantised base under adapters: which layers, the numbers of its restored weights, the exact base's own adapter."""

import copy

import pytest
import torch
from diffsynth.core.quant.backends import bitsandbytes, torchao
from miniature_wan import DIT_SIZES, NUM_TOKENS, make_dit
from quantised import NAMES, PLAIN, use_plain_as
from torch import nn

from wan_alpha.errors import ConfigError
from wan_alpha.models.adapters import adapter_state_dict, add_adapter, merge_adapter, save_adapter
from wan_alpha.models.quantize import METHODS, check_quantization, frozen_linears, make_config, quantize_base
from wan_alpha.models.wan import predict_velocity

# "same": the restored weight in other operations, relative to the largest number; "bfloat16": the run's own rounding.
TOLERANCE = {"same": 1e-5, "bfloat16": 3e-2}
RANK, ALPHA = 4, 12


@pytest.fixture(params=NAMES)
def name(request, monkeypatch):
    if request.param != PLAIN:
        return request.param
    use_plain_as("nf4", monkeypatch)
    return "nf4"


def adapted(kind, scale=0.1, dtype=torch.float32):
    dit = make_dit().to(dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parameters = add_adapter(dit, kind, RANK, ALPHA)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return dit


def velocity_input():
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 16, 2, 4, 4, generator=generator)
    return latents, torch.tensor([300.0, 800.0]), torch.randn(2, NUM_TOKENS, DIT_SIZES["text_dim"], generator=generator)


def output_and_gradients(dit, **options):
    output = predict_velocity(dit, *velocity_input(), **options)
    output.square().mean().backward()
    return output.detach(), [dit.get_parameter(name).grad for name in adapter_state_dict(dit)]


def restored(dit, name):
    """The same model with plain layers of the quantised weights."""
    config, other = make_config(name, []), copy.deepcopy(dit)
    for layer_name in frozen_linears(dit):
        parent, _, leaf = layer_name.rpartition(".")
        linear = config.backend.dequantize_to_linear(dit.get_submodule(layer_name), torch.float32)
        setattr(other.get_submodule(parent), leaf, linear)
    return other


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_numbers_and_gradients_are_those_of_the_restored_weights(name, kind):
    dit = adapted(kind)
    exact = output_and_gradients(copy.deepcopy(dit))[0]
    quantize_base(dit, name, "cpu")
    expected, expected_gradients = output_and_gradients(restored(dit, name))
    for checkpointing in (False, True):
        dit.zero_grad()
        found, gradients = output_and_gradients(dit, gradient_checkpointing=checkpointing)
        assert (found - exact).abs().max() > 1e-4 * exact.abs().max(), "nothing is quantised"
        assert (found - expected).abs().max() <= TOLERANCE["same"] * expected.abs().max()
        for one, other in zip(gradients, expected_gradients, strict=True):
            assert (one - other).abs().max() <= TOLERANCE["same"] * other.abs().max()


def test_the_blocks_linear_layers_are_quantised_and_nothing_else(name):
    dit = make_dit()
    add_adapter(dit, "dora", RANK, ALPHA, targets=("q", "ffn.2"))
    before = {key: value.clone() for key, value in dit.state_dict().items()}
    names = frozen_linears(dit)
    assert len(names) == 10 * DIT_SIZES["num_layers"] and "blocks.0.self_attn.q.base_layer" in names
    assert "blocks.0.self_attn.k" in names and not any("lora" in one for one in names)
    quantize_base(dit, name, "cpu")
    for layer_name in names:
        layer = dit.get_submodule(layer_name)
        assert type(layer) is not nn.Linear and not layer.weight.requires_grad
    left = {
        key for key, value in before.items() if key in dit.state_dict() and key.removesuffix(".weight") not in names
    }
    assert {"head.head.weight", "time_projection.1.weight", "text_embedding.0.weight", "blocks.0.modulation"} <= left
    for key in left:
        assert torch.equal(dit.state_dict()[key].float(), before[key].float()), key
    trained = [parameter for parameter in dit.parameters() if parameter.requires_grad]
    assert len(trained) == 3 * 3 * DIT_SIZES["num_layers"] and {p.dtype for p in trained} == {torch.float32}


def test_an_untrained_adapter_leaves_the_exact_base_as_it_is(name, tmp_path):
    """Magnitudes are the exact weights' norms, so what is trained over the quantised base is at home on the exact."""
    dit, base = make_dit(), make_dit().state_dict()
    add_adapter(dit, "dora", RANK, ALPHA)
    quantize_base(dit, name, "cpu")
    save_adapter(dit, tmp_path / "a.safetensors", kind="dora", rank=RANK, alpha=ALPHA, base_sha256="ab" * 32)
    merged = merge_adapter(base, tmp_path / "a.safetensors")
    for key, value in base.items():
        torch.testing.assert_close(merged[key], value, atol=0, rtol=TOLERANCE["same"])


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_autocasts_type_is_that_of_the_quantised_layers_too(name, kind):
    """Norms give float32 under autocast, which a quantised layer would pass on to attention."""
    dit, plain = adapted(kind, dtype=torch.bfloat16), adapted(kind)
    quantize_base(dit, name, "cpu")
    quantize_base(plain, name, "cpu")
    types = []
    dit.blocks[0].self_attn.q.get_base_layer().register_forward_hook(lambda *seen: types.append(seen[-1].dtype))
    expected = output_and_gradients(plain)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found, gradients = output_and_gradients(dit)
    assert types[0] == torch.bfloat16
    assert (found - expected).abs().max() <= TOLERANCE["bfloat16"] * expected.abs().max()
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


def test_an_evaluation_between_steps_changes_no_gradient(name):
    dit = adapted("lora")
    quantize_base(dit, name, "cpu")
    _, expected = output_and_gradients(dit)
    dit.zero_grad()
    with torch.no_grad():
        predict_velocity(dit.eval(), *velocity_input())
    _, gradients = output_and_gradients(dit)
    assert all(torch.equal(one, other) for one, other in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("kind", NAMES[1:])
def test_what_is_kept_without_checkpointing(kind):
    """Why a recipe of fp8 and int8 needs gradient checkpointing: torchao's restored weights stay for the backward."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    dit = adapted("lora")
    quantize_base(dit, kind, "cpu")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        predict_velocity(dit, *velocity_input())
    kept.pop(dit.head.head.weight.untyped_storage().data_ptr())  # as wide, and the model's own
    wide = [DIT_SIZES["dim"], DIT_SIZES["ffn_dim"]]
    found = sum(tensor.is_floating_point() and sorted(tensor.shape) == wide for tensor in kept.values())
    assert found == (0 if kind == "nf4" else 2 * DIT_SIZES["num_layers"])


@pytest.mark.parametrize(("name", "package"), [("fp8", "torchao"), ("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_missing_package_is_named(monkeypatch, name, package):
    monkeypatch.setattr(bitsandbytes, "BITSANDBYTES_AVAILABLE", False)
    monkeypatch.setattr(torchao, "TORCHAO_AVAILABLE", False)
    with pytest.raises(ConfigError, match=rf'model.quantization = \'{name}\'.*pip install "{package}>='):
        check_quantization(name)


@pytest.mark.parametrize("name", METHODS)
def test_every_name_is_a_weight_only_method_of_diffsynths(name):
    from diffsynth.core.quant import QUANT_METHODS
    from diffsynth.core.quant.backends import load_all_backends

    load_all_backends()
    assert "weight-only" in QUANT_METHODS[METHODS[name]].label
