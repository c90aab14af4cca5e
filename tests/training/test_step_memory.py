"""The peak of a step: equal blocks that are left out count as if they were run; autocast; the optimizer's state."""

import pytest
import torch

from wan_alpha.models.adapters import add_adapter
from wan_alpha.models.load import shape_known_dit
from wan_alpha.models.wan import predict_velocity
from wan_alpha.training.config import TrainingSettings
from wan_alpha.training.foresight import checkpoint_bytes
from wan_alpha.training.live_memory import LiveMemory
from wan_alpha.training.step_memory import Layout, state_bytes, step_memory

SIZES = {"dim": 48, "ffn_dim": 128, "num_heads": 2, "num_layers": 5, "in_dim": 16, "out_dim": 16, "image_input": False}
SHAPE = (16, 3, 16, 16)


def dit(kind):
    model = shape_known_dit(SIZES).requires_grad_(kind == "full")
    if kind != "full":
        with torch.device("meta"):
            add_adapter(model, kind, rank=4)
    return model


def planned(
    kind, checkpointing=False, with_blocks=True, device_type="cuda", dtype=torch.bfloat16, layout=Layout(), **options
):
    model = dit(kind)

    def make_loss(model):
        latents = torch.empty(1, *SHAPE)
        velocity = predict_velocity(
            model, latents, torch.empty(1), torch.empty(1, 8, 4096), gradient_checkpointing=checkpointing
        )
        return (velocity.float() - latents).square().mean()

    settings = TrainingSettings(max_steps=1, **options)
    return step_memory(model, make_loss, settings, dtype, device_type, model.blocks if with_blocks else None, layout)


@pytest.mark.parametrize(
    ("kind", "checkpointing", "options"),
    [("full", False, {}), ("full", True, {"ema_decay": 0.9}), ("dora", True, {}), ("lora", False, {}),
     ("full", True, {"gradient_accumulation": 2})],
)  # fmt: skip
def test_blocks_that_are_left_out_count_as_if_they_were_run(kind, checkpointing, options):
    some, all_of_them = (planned(kind, checkpointing, with_blocks, **options) for with_blocks in (True, False))
    assert some.peak == pytest.approx(all_of_them.peak, rel=0.02)
    assert some.kept == pytest.approx(all_of_them.kept, rel=0.01)
    assert (some.resident, some.num_trained) == (all_of_them.resident, all_of_them.num_trained)


def test_what_saves_memory_saves_it():
    plain, resident = planned("lora"), planned("lora").resident
    assert planned("lora", checkpointing=True).peak < 0.6 * plain.peak
    offloaded = planned("lora", True, layout=Layout(keeps_on_host=True))
    assert offloaded.peak < planned("lora", True).peak and offloaded.resident == resident
    one_byte = planned("lora", True, layout=Layout(linear_bytes=1.0))
    assert one_byte.frozen < 0.8 * plain.frozen
    on_host = planned("lora", True, layout=Layout(blocks_on_host=True))
    assert on_host.frozen < one_byte.frozen
    sharded = planned("full", True, layout=Layout(processes=4, shards=4))
    whole = planned("full", True, layout=Layout(processes=4))
    assert sharded.trained == whole.trained / 4 and sharded.peak < whole.peak
    assert planned("full", True).peak < whole.peak  # data parallelism has buckets of its own
    both = planned("lora", True, layout=Layout(copies=2))
    assert both.frozen == 2 * plain.frozen and both.num_trained == 2 * plain.num_trained


def test_cuda_keeps_norms_in_float32_where_the_cpu_does_not():
    assert planned("lora", device_type="cuda").kept > 1.05 * planned("lora", device_type="cpu").kept
    same = [planned("lora", device_type=device, dtype=torch.float32).kept for device in ("cuda", "cpu")]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("optimizer", "options", "expected"),
    [("adamw", {}, 8), ("torch.optim.SGD", {}, 0), ("torch.optim.SGD", {"momentum": 0.9}, 4), ("adamw_8bit", {}, 2),
     ("adafactor", {}, 0)],
)  # fmt: skip
def test_the_optimizers_state_is_seen(optimizer, options, expected):
    settings = TrainingSettings(max_steps=1, optimizer=optimizer, optimizer_options=options)
    assert state_bytes(torch.Size([30, 20]), settings) == 600 * expected


def test_live_memory_counts_what_is_alive():
    with LiveMemory() as live:
        first = torch.zeros(1000)
        second = first + 1
        view = second[:10]
        assert live.now == 8000
        del first, second
        assert live.now == 4000 and view.shape == (10,)
        del view
    assert (live.now, live.peak) == (0, 8000)


@pytest.mark.parametrize(
    ("optimizer", "per_number"), [("adamw", 12), ("adamw_8bit", 6), ("torch.optim.SGD", 4), ("torch.optim.Adagrad", 8)]
)
def test_a_checkpoint_has_what_its_optimizer_keeps(optimizer, per_number):
    settings = TrainingSettings(max_steps=1, optimizer=optimizer)
    assert checkpoint_bytes(1000, settings) == 1000 * per_number
    assert checkpoint_bytes(1000, settings.model_copy(update={"ema_decay": 0.9}), 10) == 1000 * (per_number + 4) + 40
