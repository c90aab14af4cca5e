"""Two experts: each is trained on the timesteps that sampling asks it for, saved apart, and put where it belongs."""

import json

import pytest
import torch
from safetensors.torch import save_file
from stop_every_step import everything, train_stopping
from tiny_wan_files import write_experts

from wan_alpha.errors import ConfigError
from wan_alpha.inference.expert_adapters import merge_adapters
from wan_alpha.inference.generate import generate
from wan_alpha.models.load import load_wan
from wan_alpha.models.wan import predict_velocity
from wan_alpha.stages.expert_checks import is_expert
from wan_alpha.stages.experts import predict_by_experts
from wan_alpha.stages.flow_objective import draw_sample, training_scheduler
from wan_alpha.stages.stage2_dit import WanAlphaTrainingModule, train_dit
from wan_alpha.stages.timesteps import expert_ids
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import GenerateRecipe, ObjectiveSettings, TrainDiTRecipe
from wan_alpha.training.recipes.generate import GenerateModel
from wan_alpha.weights.io import load_state_dict, read_metadata
from wan_alpha.weights.wan_layout import find_wan_files

BOUNDARY = 0.875


@pytest.fixture(scope="module")
def experts_folder(tmp_path_factory):
    return write_experts(tmp_path_factory.mktemp("experts") / "Wan2.2-T2V-A14B-tiny")


@pytest.fixture
def make_recipe(experts_folder, cache_folder, tmp_path):
    def make(expert, **changes):
        overrides = {
            "output_dir": tmp_path / "run", "model.wan": str(experts_folder), "model.expert": expert,
            "cache": cache_folder, "adapter.rank": 4, "adapter.alpha": 4, "training.max_steps": 4,
            "training.learning_rate": 1e-2, "training.device": "cpu", "training.batch_size": 2,
        }  # fmt: skip
        given = {name: value for name, value in (overrides | changes).items() if value is not None}
        return load_recipe(TrainDiTRecipe, overrides=given)

    return make


def files_of(folder):
    return {path.name for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("shift", [1.0, 5.0, 12.0])
def test_the_experts_share_the_timesteps_as_sampling_does(shift):
    timesteps = training_scheduler(shift).timesteps
    high, low = (expert_ids(timesteps, BOUNDARY, expert) for expert in ("high_noise", "low_noise"))
    assert [*high, *low] == list(range(1000))
    assert (timesteps[list(high)] >= 1000 * BOUNDARY).all() and (timesteps[list(low)] < 1000 * BOUNDARY).all()
    assert 0 < len(high) < 1000


@pytest.mark.parametrize("timesteps", ["uniform", "logit_normal", "mode"])
def test_draws_are_the_distribution_cut_to_the_experts_ids(timesteps):
    settings, ids = ObjectiveSettings(timesteps=timesteps), range(100, 417)
    drawn = torch.cat([draw_sample((1, 1, 1, 1), seed, settings, ids).timestep_ids for seed in range(2000)])
    free = torch.cat([draw_sample((1, 1, 1, 1), seed, settings).timestep_ids for seed in range(8000)])
    expected = free[(free >= 100) & (free < 417)]
    assert drawn.min() >= 100 and drawn.max() < 417
    quantiles = torch.tensor([0.25, 0.5, 0.75])
    assert (drawn.float().quantile(quantiles) - expected.float().quantile(quantiles)).abs().max() < 20


def test_a_distribution_that_never_gets_there_is_refused():
    settings = ObjectiveSettings(timesteps="logit_normal", logit_mean=-9.0, logit_std=0.1)
    with pytest.raises(ConfigError, match="gave none of the expert's timesteps"):
        draw_sample((1, 1, 1, 1), 0, settings, range(0, 10))


def test_each_sample_is_predicted_by_the_expert_of_its_timestep(experts_folder):
    pipe = load_wan(str(experts_folder), components=("dit",))
    pipe.dit.requires_grad_(True), pipe.dit2.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    noisy, context = torch.randn(3, 16, 1, 4, 4, generator=generator), torch.randn(3, 8, 16, generator=generator)
    timesteps = torch.tensor([900.0, 875.0, 874.9])
    mixed = predict_by_experts(pipe, noisy, timesteps, context)
    for index, dit in enumerate((pipe.dit, pipe.dit, pipe.dit2)):
        alone = predict_velocity(dit, *(value[index : index + 1] for value in (noisy, timesteps, context)))
        torch.testing.assert_close(mixed[index : index + 1], alone)

    predict_by_experts(pipe, noisy[:2], timesteps[:2], context[:2]).square().sum().backward()
    used, unused = ([p.grad.abs().sum() for p in dit.parameters()] for dit in (pipe.dit, pipe.dit2))
    assert max(used) > 0 and max(unused) == 0


@pytest.mark.parametrize("expert", ["high_noise", "low_noise"])
def test_one_expert_trains_on_its_own_timesteps(make_recipe, experts_folder, monkeypatch, expert):
    seen = []
    original = WanAlphaTrainingModule.forward

    def forward(module, batch, *others):
        assert module.pipe.dit2 is None  # the other one is not in memory
        return original(module, batch, *others)

    monkeypatch.setattr(WanAlphaTrainingModule, "forward", forward)
    monkeypatch.setattr(
        "wan_alpha.stages.stage2_dit.predict_velocity",
        lambda dit, noisy, timesteps, *others, **options: (
            seen.extend(timesteps.tolist()) or predict_velocity(dit, noisy, timesteps, *others, **options)
        ),
    )
    recipe = make_recipe(expert, validation_cache=make_recipe(expert).cache)
    train_dit(recipe)
    assert len(seen) > 8
    assert all((timestep >= 1000 * BOUNDARY) == (expert == "high_noise") for timestep in seen)
    assert files_of(recipe.output_dir) == {f"adapter_{expert}.safetensors"}
    metadata = read_metadata(recipe.output_dir / f"adapter_{expert}.safetensors")
    assert metadata["expert"] == expert


def test_both_train_in_one_run_and_are_saved_apart(make_recipe, experts_folder):
    recipe = make_recipe("both")
    train_dit(recipe)
    assert files_of(recipe.output_dir) == {"adapter_high_noise.safetensors", "adapter_low_noise.safetensors"}
    adapters = {
        expert: load_state_dict(recipe.output_dir / f"adapter_{expert}.safetensors")
        for expert in ("high_noise", "low_noise")
    }
    for adapter in adapters.values():
        assert all(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)
    hashes = {read_metadata(recipe.output_dir / name)["base_sha256"] for name in files_of(recipe.output_dir)}
    assert len(hashes) == 2


def test_both_stopped_in_each_step_are_the_straight_run(make_recipe, tmp_path, monkeypatch):
    train_dit(make_recipe("both", output_dir=tmp_path / "straight"))
    train_stopping(train_dit, make_recipe("both", output_dir=tmp_path / "stopped"), WanAlphaTrainingModule, monkeypatch)
    straight, stopped = (everything(tmp_path / run) for run in ("straight", "stopped"))
    differing = {name for name in straight if straight[name] != stopped[name]}
    # Recipes, with their folders, stand in these files' metadata.
    assert straight.keys() == stopped.keys()
    assert differing <= {"state.json", "adapter_high_noise.safetensors", "adapter_low_noise.safetensors"}


def test_full_training_writes_each_expert(make_recipe, experts_folder, tmp_path):
    recipe = make_recipe("both", **{"adapter.kind": "full", "adapter.rank": None, "adapter.alpha": None})
    train_dit(recipe)
    assert files_of(recipe.output_dir) == {"dit_high_noise.safetensors", "dit_low_noise.safetensors"}
    again = load_wan([[str(recipe.output_dir / "dit_low_noise.safetensors")]], components=("dit",)).dit
    base = load_wan(str(experts_folder), components=("dit",)).dit2
    changed = [name for name, value in again.state_dict().items() if not torch.equal(value, base.state_dict()[name])]
    assert changed


def merged(experts_folder, **files):
    pipe = load_wan(str(experts_folder), components=("dit",))
    model = GenerateModel(wan=str(experts_folder), base_vae="vae.pth", decoder_lora="decoder.bin", **files)
    merge_adapters(pipe, model)
    return {"high_noise": pipe.dit.state_dict(), "low_noise": pipe.dit2.state_dict()}


def changed_experts(before, after):
    def differ(one, other):
        return any(not torch.equal(one[name], other[name]) for name in one)

    return {expert for expert in before if differ(before[expert], after[expert])}


def test_adapters_go_where_they_belong(make_recipe, experts_folder, tmp_path):
    run = make_recipe("both").output_dir
    train_dit(make_recipe("both"))
    high, low = (run / f"adapter_{expert}.safetensors" for expert in ("high_noise", "low_noise"))
    base = merged(experts_folder)
    assert changed_experts(base, merged(experts_folder, adapter=high)) == {"high_noise"}
    assert changed_experts(base, merged(experts_folder, adapter=low)) == {"low_noise"}
    both = merged(experts_folder, adapter=high, adapter_low_noise=low)
    assert changed_experts(base, both) == {"high_noise", "low_noise"}
    nameless = tmp_path / "nameless.safetensors"
    save_file(load_state_dict(high), nameless, {"kind": "dora", "rank": "4", "alpha": "4"})
    assert changed_experts(base, merged(experts_folder, adapter=nameless)) == {"high_noise", "low_noise"}
    assert changed_experts(base, merged(experts_folder, adapter_low_noise=nameless)) == {"low_noise"}
    save_file(load_state_dict(high), nameless, {"expert": "null"})
    assert changed_experts(base, merged(experts_folder, adapter=nameless)) == {"high_noise", "low_noise"}
    with pytest.raises(ConfigError, match="model.adapter: .*trained on the low_noise expert; exchange"):
        merged(experts_folder, adapter=low, adapter_low_noise=high)


def test_generate_takes_both(make_recipe, experts_folder, reference_dir, tmp_path):
    run = make_recipe("both").output_dir
    train_dit(make_recipe("both", **{"training.max_steps": 1}))
    options = {
        "output_dir": tmp_path / "out", "prompt": "a red circle", "model.wan": str(experts_folder),
        "model.base_vae": reference_dir / "base_vae.safetensors",
        "model.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin",
        "model.adapter": run / "adapter_high_noise.safetensors",
        "model.adapter_low_noise": run / "adapter_low_noise.safetensors", "num_frames": 5, "height": 32, "width": 32,
        "num_steps": 3, "guidance": 1.0, "formats": "png", "device": "cpu",
    }  # fmt: skip
    (clip,) = generate(load_recipe(GenerateRecipe, overrides=options), progress=False)
    models = json.loads((clip.folder / "settings.json").read_text())["models"]
    assert {"dit", "dit_low_noise", "adapter", "adapter_low_noise"} <= models.keys()


@pytest.mark.parametrize(
    ("expert", "changes", "message"),
    [
        (None, {}, "holds two experts: say which is trained, model.expert = high_noise, low_noise, or both"),
        (None, {"model.boundary": 0.9}, "model.boundary has no effect without model.expert"),
        ("both", {"model.dit": "dit.safetensors"}, "model.dit names one DiT, model.expert = both trains two"),
    ],
)
def test_what_is_refused(make_recipe, expert, changes, message):
    with pytest.raises(ConfigError, match=message):
        train_dit(make_recipe(expert, **changes))


@pytest.mark.parametrize(
    ("expert", "boundary", "message"),
    [
        ("high_noise", 0.9999, r"boundary = 0.9999: 1 timestep.* left to the high_noise expert; .* give a lower one"),
        ("low_noise", 0.001, r"boundary = 0.001: no timestep.* left to the low_noise expert; .* give a higher one"),
        ("both", 0.001, r"no timestep.* left to the low_noise expert"),
    ],
)
def test_a_boundary_that_leaves_an_expert_nothing_is_refused(make_recipe, monkeypatch, expert, boundary, message):
    monkeypatch.setattr("wan_alpha.stages.stage2_dit.load_trained_dits", None)  # would be called to load
    for is_dry in (False, True):
        with pytest.raises(ConfigError, match=message):
            train_dit(make_recipe(expert, **{"model.boundary": boundary, "dry_run": is_dry}))


def test_the_only_dit_of_a_model_is_no_expert_unless_a_boundary_says_so(make_recipe, wan_folder, monkeypatch):
    alone = {"model.wan": str(wan_folder)}
    train_dit(make_recipe("high_noise", **alone, **{"model.boundary": 0.9, "training.max_steps": 1}))
    monkeypatch.setattr("wan_alpha.stages.stage2_dit.load_trained_dits", None)  # would be called to load
    for is_dry in (False, True):
        with pytest.raises(ConfigError, match="model.expert = high_noise: there is one DiT in .*, for all timesteps"):
            train_dit(make_recipe("high_noise", **alone, dry_run=is_dry))


def test_what_is_an_expert_is_said_by_folder_and_sizes(experts_folder, wan_folder):
    high = str(experts_folder / "high_noise_model" / "diffusion_pytorch_model.safetensors")
    alone = find_wan_files([high])
    assert is_expert(find_wan_files(str(experts_folder)), str(experts_folder))
    # The tiny one has not the sizes of any expert; the name of its maker's folder speaks for it, or against it.
    assert not is_expert(alone, [high.replace("A14B", "mine")])
    assert is_expert(alone, ["models/Wan2.2-T2V-A14B/high_noise_model/x.safetensors"])
    assert not is_expert(alone, ["models/Wan2.1-T2V-14B/x.safetensors"])


def test_both_of_a_model_of_one_is_refused(make_recipe, wan_folder):
    with pytest.raises(ConfigError, match="model.expert = both: there is one DiT in"):
        train_dit(make_recipe("both", **{"model.wan": str(wan_folder)}))
