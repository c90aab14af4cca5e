"""The average of the weights: its formula, its place, and who uses it."""

import pytest
import torch
from durable_toy import ListeningModule, train

from wan_alpha.training.ema import WeightAverage, decay_at
from wan_alpha.weights.io import load_state_dict


@pytest.mark.parametrize("on_cpu", [False, True])
def test_the_formula(on_cpu):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    average = WeightAverage({"w": weight}, 0.5, on_cpu)
    expected = weight.detach().double()
    for num_updates in range(12):
        weight.data = weight.data * 1.5 + num_updates
        decay = min(0.5, (1 + num_updates) / (10 + num_updates))
        assert decay_at(num_updates, 0.5) == decay
        expected = decay * expected + (1 - decay) * weight.detach().double()
        average.update(num_updates)
    torch.testing.assert_close(average.tensors()["w"].double(), expected, rtol=1e-5, atol=0)


def test_weights_come_back_to_the_bit():
    weight = torch.nn.Parameter(torch.randn(5))
    average = WeightAverage({"w": weight}, 0.9)
    before = weight.detach().clone()
    weight.data = weight.data + 1
    trained = weight.detach().clone()
    with pytest.raises(ZeroDivisionError), average.in_place_of_weights():
        assert torch.equal(weight, before)
        raise ZeroDivisionError
    assert torch.equal(weight, trained)


def final_weights(folder):
    return load_state_dict(folder / "final.safetensors")["last.weight"]


def test_training_does_not_depend_on_the_average(tmp_path):
    modules = [ListeningModule() for _ in range(3)]
    train(tmp_path / "with", modules[0], ema_used_by="both")
    train(tmp_path / "cpu", modules[1], ema_used_by="both", ema_on_cpu=True)
    train(tmp_path / "without", modules[2], ema_decay=None)
    for module in modules[:2]:
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), modules[2].parameters(), strict=True))
    assert torch.equal(final_weights(tmp_path / "with"), final_weights(tmp_path / "cpu"))
    assert not torch.equal(final_weights(tmp_path / "with"), final_weights(tmp_path / "without"))


@pytest.mark.parametrize(
    ("used_by", "validates", "exports"),
    [("both", True, True), ("validation", True, False), ("export", False, True), ("none", False, False)],
)
def test_who_uses_it(tmp_path, used_by, validates, exports):
    module = ListeningModule()
    result = train(tmp_path, module, ema_used_by=used_by)
    average = load_state_dict(tmp_path / "checkpoints" / "step_00000024" / "ema.safetensors")
    weights = {name: value.detach() for name, value in module.named_parameters()}
    judged = (average if validates else weights)["first.weight"]
    assert result.validation[-1]["error"] == pytest.approx(float(judged.norm()) - 1.0, abs=1e-6)
    assert torch.equal(final_weights(tmp_path), (average if exports else weights)["last.weight"])
