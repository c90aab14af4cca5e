"""Blocks whose weights wait in host memory: the same numbers, and never more than a block's weights on the device."""

import weakref

import pytest
import torch
from diffsynth.core.offload_training import memory_buffer
from miniature_wan import DIT_SIZES, NUM_TOKENS
from quantised import NAMES, PLAIN, use_plain_as

from wan_alpha.models import block_offload
from wan_alpha.models.adapters import adapter_state_dict, add_adapter
from wan_alpha.models.block_offload import offload_blocks
from wan_alpha.models.quantize import frozen_linears, quantize_base
from wan_alpha.models.wan import predict_velocity

LAYERS_OF_A_BLOCK = 10
NUM_LAYERS = 3


@pytest.fixture
def copies(monkeypatch):
    """Copies "on the device" that are alive, and the most that were at once; on a CPU they would be no copies."""

    class Copies:
        alive = most = made = 0

        def copy_to(self, weight, device):
            copy = weight.to("cpu")
            copy = copy.clone() if copy is weight else copy
            self.alive, self.made = self.alive + 1, self.made + 1
            self.most = max(self.most, self.alive)
            weakref.finalize(copy, self.dropped)
            return copy

        def dropped(self):
            self.alive -= 1

    found = Copies()
    monkeypatch.setattr(block_offload, "copy_to", found.copy_to)
    return found


def adapted(kind):
    from diffsynth.models.wan_video_dit import WanModel

    torch.manual_seed(0)
    dit = WanModel(**DIT_SIZES | {"num_layers": NUM_LAYERS}).eval()
    parameters = [] if kind == "none" else add_adapter(dit, kind, 4, 12)
    if kind == "none":
        dit.requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return dit


def velocity_input():
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 16, 2, 4, 4, generator=generator)
    context = torch.randn(2, NUM_TOKENS, DIT_SIZES["text_dim"], generator=generator)
    return latents, torch.tensor([300.0, 800.0]), context.requires_grad_()


def train_passes(dit, copies=None, **options):
    """Two micro-batches whose gradients add up; the outputs, the gradients, and the copies alive after each pass."""
    outputs, alive, inputs = [], [], velocity_input()
    for _ in range(2):
        outputs.append(predict_velocity(dit, *inputs, gradient_checkpointing=True, **options))
        alive.append(copies and copies.alive)
        outputs[-1].square().mean().backward()
        alive.append(copies and copies.alive)
    gradients = [inputs[-1].grad, *(dit.get_parameter(name).grad for name in adapter_state_dict(dit))]
    return [output.detach() for output in outputs], gradients, alive


@pytest.mark.parametrize(("kind", "offload_activations"), [("dora", True), ("lora", False), ("none", True)])
def test_numbers_are_the_same_and_one_block_is_there_at_a_time(copies, kind, offload_activations):
    expected = train_passes(adapted(kind))
    dit = adapted(kind)
    offload_blocks(dit, torch.device("cpu"))
    found = train_passes(dit, copies, offload_activations=offload_activations)
    for one, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert torch.equal(one, other)
    assert copies.most == LAYERS_OF_A_BLOCK and found[2] == [0, 0, 0, 0]
    # Each block's came for the pass, and for the one that the backward makes again.
    assert copies.made == 2 * 2 * NUM_LAYERS * LAYERS_OF_A_BLOCK


@pytest.mark.parametrize("name", [PLAIN, *NAMES[1:3]])
def test_a_quantised_base_waits_as_well(copies, monkeypatch, name):
    if name == PLAIN:
        name = "fp8"
        use_plain_as(name, monkeypatch)
    expected = adapted("dora")
    quantize_base(expected, name, "cpu")
    dit = adapted("dora")
    quantize_base(dit, name, "cpu", keep_on="cpu")
    offload_blocks(dit, torch.device("cpu"))
    found, wanted = train_passes(dit, copies), train_passes(expected)
    assert all(torch.equal(one, other) for one, other in zip(found[1], wanted[1], strict=True))
    assert copies.most == LAYERS_OF_A_BLOCK and found[2] == [0, 0, 0, 0]


def test_pinned_memory_holds_the_same_weights(copies, monkeypatch):
    """What runs for CUDA, but for the pinning itself, which a machine without a GPU refuses."""

    def allocate(buffer):
        buffer._buf = torch.empty(buffer._size, dtype=torch.uint8) if buffer._buf is None else buffer._buf

    monkeypatch.setattr(memory_buffer.PinnedBuffer, "_ensure_allocated", allocate)
    dit = adapted("lora")
    weights = {name: dit.get_submodule(name).weight for name in frozen_linears(dit)}
    offload_blocks(dit, torch.device("cuda"))
    assert torch.equal(predict_velocity(dit, *velocity_input()), predict_velocity(adapted("lora"), *velocity_input()))
    held = weakref.ref(weights.popitem()[1])
    assert held() is None, "the weight is there twice"


def test_passes_without_gradients_leave_nothing_behind(copies):
    """Validation and previews: many passes, no backward between them."""
    plain, dit = adapted("dora"), adapted("dora")
    offload_blocks(dit, torch.device("cpu"))
    with torch.no_grad():
        for _ in range(3):
            found = predict_velocity(dit, *velocity_input(), gradient_checkpointing=True)
        assert torch.equal(found, predict_velocity(plain, *velocity_input()))
    assert copies.alive == 0 and copies.most == LAYERS_OF_A_BLOCK
    train_passes(dit, copies)
    assert copies.alive == 0 and copies.most == LAYERS_OF_A_BLOCK


def test_what_is_moved_with_the_model_is_the_rest(copies):
    dit = adapted("lora")
    before = {key: value.clone() for key, value in dit.state_dict().items()}
    names = {f"{name}.weight" for name in frozen_linears(dit)}
    offload_blocks(dit, torch.device("cpu"))
    dit.to(torch.float64).to(torch.float32)
    for name, parameter in dit.named_parameters():
        assert parameter.numel() == (0 if name in names else before[name].numel()), name
        assert parameter.requires_grad == (".lora_" in name)
    small = sum(parameter.numel() for parameter in dit.blocks.parameters() if not parameter.requires_grad)
    assert small < 0.1 * sum(before[name].numel() for name in names)
    assert torch.equal(predict_velocity(dit, *velocity_input()), predict_velocity(adapted("lora"), *velocity_input()))


def test_a_pass_that_fails_keeps_no_weights(copies, monkeypatch):
    dit = adapted("lora")
    offload_blocks(dit, torch.device("cpu"))

    def fail(*args):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as failing:
        failing.setattr(dit.blocks[1].ffn[2], "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            predict_velocity(dit, *velocity_input(), gradient_checkpointing=True)
    assert copies.alive == 0
    assert torch.equal(predict_velocity(dit, *velocity_input()), predict_velocity(adapted("lora"), *velocity_input()))


@pytest.mark.parametrize("name", NAMES[3:])
def test_bitsandbytes_holds_what_it_computed_with(copies, name):
    """Why a recipe refuses the two together; when this fails, it need not any more."""
    dit = adapted("lora")
    quantize_base(dit, name, "cpu")
    offload_blocks(dit, torch.device("cpu"))
    output = predict_velocity(dit, *velocity_input(), gradient_checkpointing=True)
    assert output.requires_grad and copies.alive > 2 * LAYERS_OF_A_BLOCK
