"""The loop's promises: resume is exact, bad updates are skipped, folders of other recipes are refused."""

import json
from pathlib import Path

import pytest
import torch
from toy_regression import ToyDataset, ToyModule, collate, error_without_dropout

from wan_alpha.errors import ConfigError, NonFiniteError
from wan_alpha.training.config import Recipe, TrainingSettings
from wan_alpha.training.loop import run_training
from wan_alpha.training.run_folder import read_metrics
from wan_alpha.weights.io import load_state_dict, save_safetensors


class ToyRecipe(Recipe):
    """A recipe with a training table only."""

    may_change_on_resume = frozenset({"training.max_steps", "training.checkpoint_every"})
    training: TrainingSettings


def settings(**changes):
    values = {"max_steps": 12, "batch_size": 3, "learning_rate": 1e-2, "checkpoint_every": 2, "device": "cpu"}
    return TrainingSettings(**(values | changes))


def export(module, folder):
    save_safetensors(dict(module.state_dict()), folder / "final.safetensors")
    return [folder / "final.safetensors"]


def train(folder, module=None, dataset=None, seed=0, validate=None, **changes):
    chosen = settings(**changes)
    recipe = ToyRecipe(output_dir=folder, seed=seed, training=chosen)
    return run_training(
        module or ToyModule(), ToyDataset(seed=seed) if dataset is None else dataset, chosen, folder, seed,
        collate=collate, validate=validate, export=export, recipe=recipe,
    )  # fmt: skip


def outputs(folder):
    return read_metrics(folder), load_state_dict(Path(folder) / "final.safetensors")


def assert_same_run(one, other):
    rows, weights = outputs(one)
    other_rows, other_weights = outputs(other)
    assert rows == other_rows
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("fail_at", [2, 6, 12])
def test_interrupted_run_continues_bit_for_bit(tmp_path, fail_at, schedule):
    options = {"schedule": schedule, "warmup_steps": 3, "validate_every": 4, "validate": error_without_dropout}
    straight = train(tmp_path / "straight", **options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", ToyModule(fail_at=fail_at), **options)
    resumed = train(tmp_path / "stopped", **options)
    assert resumed.resumed_from == (fail_at - 1) // 2 * 2
    assert resumed.losses == straight.losses and len(straight.losses) == 12
    assert resumed.validation == straight.validation
    assert [row["step"] for row in straight.validation] == [0, 4, 8, 12]
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


def test_longer_run_continues_a_finished_one(tmp_path):
    train(tmp_path / "straight")
    train(tmp_path / "two", max_steps=5)
    assert train(tmp_path / "two").resumed_from == 5
    assert_same_run(tmp_path / "straight", tmp_path / "two")


def test_finished_run_says_so_and_changes_nothing(tmp_path, capsys):
    first = train(tmp_path)
    module = ToyModule()
    again = train(tmp_path, module)
    assert again.was_finished and module.calls == 0
    assert again.losses == first.losses
    assert "already finished at step 12" in capsys.readouterr().err


def test_finished_run_writes_weights_that_are_missing(tmp_path, capsys):
    train(tmp_path)
    final = tmp_path / "final.safetensors"
    before = final.read_bytes()
    final.unlink()
    assert train(tmp_path).was_finished
    assert final.read_bytes() == before
    assert "already finished at step 12; writing its weights" in capsys.readouterr().err


def test_run_that_is_ended_at_its_checkpoint_writes_that_ones_weights(tmp_path):
    """The weights that are there are of an earlier end."""
    train(tmp_path / "run", max_steps=4)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", ToyModule(fail_at=4))
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 7]
    result = train(tmp_path / "run", max_steps=6)
    assert (result.was_finished, result.step, len(result.losses)) == (True, 6, 6)
    train(tmp_path / "straight", max_steps=6)
    ours, theirs = outputs(tmp_path / "run")[1], outputs(tmp_path / "straight")[1]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Fingerprinted(ToyDataset):
    """A dataset that says what it is made of."""

    def __init__(self, clips, **kwargs):
        super().__init__(**kwargs)
        self.clips = clips

    def fingerprint(self):
        return {"clips": self.clips, "text encoder": "same"}


@pytest.mark.parametrize(
    "before, now, message",
    [
        (ToyDataset(length=10), ToyDataset(length=4), r"changed since it began: samples \(10 samples there, 4 here\)"),
        (ToyDataset(length=10), ToyDataset(length=11), r"10 samples there, 11 here"),
        (Fingerprinted("a"), Fingerprinted("b"), "changed since it began: clips; choose another output_dir"),
        (Fingerprinted("a"), ToyDataset(), "changed since it began: clips, text encoder"),
    ],
    ids=["fewer", "more", "others", "no longer told"],
)
@pytest.mark.parametrize("steps_before", [2, 12], ids=["unfinished", "finished"])
def test_other_data_in_the_same_folder_is_refused(tmp_path, before, now, message, steps_before):
    train(tmp_path, dataset=before, max_steps=steps_before)
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, dataset=now)
    train(tmp_path, dataset=before)


def test_what_an_earlier_version_did_not_record_is_said_and_recorded(tmp_path, capsys):
    train(tmp_path, dataset=ToyDataset(), max_steps=2)
    train(tmp_path, dataset=Fingerprinted("a"), max_steps=4)
    assert "did not record, so taken for unchanged since it began: clips, text encoder" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="changed since it began: clips;"):
        train(tmp_path, dataset=Fingerprinted("b"))


@pytest.mark.parametrize("first", [5, 12], ids=["longer", "finished, longer"])
def test_length_is_fixed_where_the_schedule_follows_from_it(tmp_path, first):
    train(tmp_path, schedule="cosine", max_steps=first)
    with pytest.raises(ConfigError, match=rf"max_steps: {first} there, 20 here\nwith training.schedule = 'cosine'"):
        train(tmp_path, schedule="cosine", max_steps=20)
    assert train(tmp_path, schedule="cosine", max_steps=first).was_finished


@pytest.mark.parametrize(
    "changes",
    [
        {"num_workers": 2},
        {"num_workers": 1, "worker_start": "spawn", "prefetch": 3},
        {"batch_size": 1, "gradient_accumulation": 3},
    ],
    ids=["workers", "spawned", "accumulation"],
)
def test_workers_and_accumulation_do_not_change_the_run(tmp_path, changes):
    modules = [ToyModule(), ToyModule()]
    for module in modules:
        module.dropout.p = 0.0
    straight = train(tmp_path / "a", modules[0])
    other = train(tmp_path / "b", modules[1], **changes)
    assert other.losses == pytest.approx(straight.losses, rel=1e-6)
    for mine, theirs in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_epochs_use_every_sample_once_and_end_the_run(tmp_path):
    seen = []

    class Recording(ToyDataset):
        def __getitem__(self, index):
            seen.append((self.epoch, index))
            return super().__getitem__(index)

    result = train(tmp_path, dataset=Recording(length=7), max_steps=None, num_epochs=3)
    assert result.step == 9  # 3 + 3 + 1 samples in each epoch
    assert sorted(seen) == [(epoch, index) for epoch in range(3) for index in range(7)]
    assert seen[:7] != seen[7:14]


def test_a_run_that_goes_on_with_other_steps_still_sees_every_sample_once(tmp_path, monkeypatch):
    """As it does with another number of processes, in the middle of an epoch of several groups."""
    monkeypatch.setattr("wan_alpha.training.loop.check_same_step_size", lambda *sizes: None)
    seen = []

    class Grouped(ToyDataset):
        def group_of(self, index):
            return index % 3

        def __getitem__(self, index):
            seen.append((self.epoch, index))
            return super().__getitem__(index)

    def part(batch_size, **limits):
        chosen = settings(batch_size=batch_size, checkpoint_every=None, **limits)
        return run_training(ToyModule(), Grouped(length=14), chosen, tmp_path, 0, collate=collate)

    part(3, max_steps=2)
    part(2, max_steps=4)
    result = part(4, max_steps=None, num_epochs=2)
    assert sorted(seen) == [(epoch, index) for epoch in range(2) for index in range(14)]
    assert result.step == 2 + 2 + 1 + 4  # 6, 4 and 4 samples of the first epoch, then 4 + 4 + 4 + 2


def test_loss_falls(tmp_path):
    module = ToyModule()
    module.dropout.p = 0.0
    losses = train(tmp_path, module, max_steps=150, checkpoint_every=None).losses
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])


def test_frozen_parameters_and_old_checkpoints_stay_out(tmp_path):
    module = ToyModule()
    before = module.frozen.weight.clone()
    train(tmp_path, module, keep_checkpoints=2)
    assert torch.equal(module.frozen.weight, before)
    folders = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert folders == ["step_00000010", "step_00000012"]
    saved = load_state_dict(tmp_path / "checkpoints" / "step_00000012" / "model.safetensors")
    assert sorted(saved) == ["first.bias", "first.weight", "last.bias", "last.weight"]


def test_incomplete_newest_checkpoint_is_passed_over(tmp_path):
    train(tmp_path / "straight")
    train(tmp_path / "cut", max_steps=6)
    weights = tmp_path / "cut" / "checkpoints" / "step_00000006" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert train(tmp_path / "cut").resumed_from == 4
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def test_non_finite_update_is_skipped_and_counted(tmp_path):
    module = ToyModule(nan_at=(3, 5))
    result = train(tmp_path, module)
    assert result.skipped_updates == 2
    assert [step for step, loss in enumerate(result.losses, 1) if loss is None] == [3, 5]
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["skipped_updates"] == 2
    assert not any("NaN" in line for line in lines)


def test_five_non_finite_updates_in_a_row_end_the_run(tmp_path):
    module = ToyModule(nan_at=range(4, 100))
    with pytest.raises(NonFiniteError, match="5 updates in a row up to step 8"):
        train(tmp_path, module)


def test_skips_are_remembered_over_a_resume(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, ToyModule(nan_at=range(2, 100), fail_at=5))
    with pytest.raises(NonFiniteError, match="up to step 6"):
        train(tmp_path, ToyModule(nan_at=range(100)))


@pytest.mark.parametrize(
    "changes, named", [({"learning_rate": 5e-3}, "learning_rate"), ({"batch_size": 2}, "batch_size")]
)
def test_another_recipe_in_the_same_folder_is_refused(tmp_path, changes, named):
    train(tmp_path, max_steps=4)
    with pytest.raises(ConfigError, match=rf"training\.{named}: .* there, .* here"):
        train(tmp_path, **changes)


def test_bad_starts_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="dataset is empty"):
        train(tmp_path, dataset=ToyDataset(length=0))
    with pytest.raises(ConfigError, match="nothing to train"):
        train(tmp_path, ToyModule().requires_grad_(False))


def test_adamw_and_clipping_are_the_textbook_ones(tmp_path):
    module, reference = ToyModule(), ToyModule()
    train(tmp_path, module, max_steps=1, max_grad_norm=0.05, weight_decay=0.1)
    row = read_metrics(tmp_path)[0]
    assert row["gradient_norm"] > 0.05  # reported before clipping
    for name, parameter in module.named_parameters():
        start = dict(reference.named_parameters())[name]
        if parameter.requires_grad:
            # AdamW's first step moves by the learning rate in the sign of the gradient, besides the decay.
            moved = (parameter - start * (1 - 1e-2 * 0.1)).abs()
            assert (moved <= 1e-2 * 1.0001).all() and moved.max() > 0.9e-2
        else:
            assert torch.equal(parameter, start)


def test_log_every_thins_out_the_lines(tmp_path):
    train(tmp_path, log_every=5)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 5, 10, 12]
    assert {"loss", "noise_level", "learning_rate", "gradient_norm", "epoch"} <= set(read_metrics(tmp_path)[0])
