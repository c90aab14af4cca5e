import json

import pytest
import torch
from diffsynth.diffusion import FlowMatchSFTLoss
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stop_every_step import everything, train_stopping
from tiny_wan_files import write_dataset, write_wan

from wan_alpha.data.cached_samples import LatentCacheDataset
from wan_alpha.data.dataset import collate
from wan_alpha.data.latent_cache import LatentCache, item_path
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.models.adapters import add_adapter, load_adapter, merge_adapter
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.models.wan import load_wan, predict_velocity
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.dit_data import open_fresh_cache
from wan_alpha.stages.stage2_dit import (
    WanAlphaTrainingModule,
    train_dit,
    validation_loss,
    weights_sha256,
)
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import AdapterSettings, ObjectiveSettings, TrainDiTRecipe
from wan_alpha.weights.adapter_card import read_adapter_card, recipe_sha256
from wan_alpha.weights.io import read_metadata, rounded_sha256

TOLERANCE = {"float32": 1e-5, "relative": 1e-4}
SMALL = {"rank": 4, "alpha": 8}
NUM_STOPPED_STEPS = 6


@pytest.fixture
def make_module(wan_folder, cache_folder):
    def make(kind="dora", checkpointing=False, **objective):
        adapter = AdapterSettings(kind="full") if kind == "full" else AdapterSettings(kind=kind, **SMALL)
        context = LatentCache.open(cache_folder).empty_context()
        pipe = load_wan(str(wan_folder), components=("dit",))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # PEFT draws A from the global generator
            return WanAlphaTrainingModule(pipe, adapter, ObjectiveSettings(**objective), checkpointing, context)

    return make


@pytest.fixture
def batch(cache_folder):
    dataset = LatentCacheDataset(LatentCache.open(cache_folder), seed=1)
    return collate([dataset[index] for index in range(3)])


@pytest.fixture
def make_recipe(wan_folder, cache_folder, tmp_path):
    def make(**changes):
        overrides = {
            "output_dir": tmp_path / "run", "model.wan": str(wan_folder), "cache": cache_folder, "adapter.rank": 4,
            "adapter.alpha": 8, "training.max_steps": 3, "training.learning_rate": 1e-2, "training.device": "cpu",
            "training.batch_size": 2,
        }  # fmt: skip
        given = {name: value for name, value in (overrides | changes).items() if value != "absent"}
        return load_recipe(TrainDiTRecipe, overrides=given)

    return make


def part(batch, index):
    return {name: value[index : index + 1] for name, value in batch.items()}


def move_adapter(module, scale=0.1):
    """As if it had been trained: B away from zero, magnitudes away from the norms."""
    generator = torch.Generator().manual_seed(2)
    for parameter in module.trainable_modules():
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("kind", ["dora", "full"])
def test_one_sample_gives_diffsynths_loss(make_module, batch, kind):
    module, sample = make_module(kind), part(batch, 1)
    if kind == "dora":
        move_adapter(module)
    ours = module(sample)["total"]
    # diffsynth draws from the global generator: the timestep, then the noise, as we do from the sample's own.
    torch.manual_seed(int(sample["sample_seed"]))
    theirs = FlowMatchSFTLoss(module.pipe, input_latents=sample["latents"], context=sample["context"])
    torch.testing.assert_close(ours, theirs, atol=0, rtol=TOLERANCE["relative"])


def test_a_batch_is_the_mean_of_its_samples(make_module, batch):
    module = make_module()
    move_adapter(module)
    together = module(batch)
    alone = [module(part(batch, index)) for index in range(3)]
    for name, value in together.items():
        mean = torch.stack([terms[name] for terms in alone]).mean()
        torch.testing.assert_close(value, mean, atol=0, rtol=TOLERANCE["relative"])


def test_gradient_checkpointing_changes_nothing(make_module, batch):
    gradients = []
    for checkpointing in (False, True):
        module = make_module(checkpointing=checkpointing)
        move_adapter(module)
        module(batch)["total"].backward()
        gradients.append([parameter.grad for parameter in module.trainable_modules()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, atol=TOLERANCE["float32"], rtol=TOLERANCE["relative"])


@pytest.mark.parametrize(("kind", "parts"), [("dora", 3), ("lora", 2)])
def test_only_the_adapter_trains_in_float32_with_its_own_alpha(make_module, kind, parts):
    module = make_module(kind)
    names = module.trainable_param_names()
    assert len(names) == parts * 20  # two blocks of ten layers: q k v o twice, two of the feed-forward
    assert all(name.startswith("pipe.dit.blocks.") and ".lora_" in name for name in names)
    assert {parameter.dtype for parameter in module.trainable_modules()} == {torch.float32}
    assert module.pipe.dit.blocks[0].self_attn.q.scaling["default"] == SMALL["alpha"] / SMALL["rank"]


def test_a_bfloat16_base_keeps_float32_adapters(wan_folder, batch):
    pipe = load_wan(str(wan_folder), components=("dit",), dtype=torch.bfloat16)
    module = WanAlphaTrainingModule(pipe, AdapterSettings(**SMALL))
    assert {parameter.dtype for parameter in module.trainable_modules()} == {torch.float32}
    assert pipe.dit.blocks[0].self_attn.q.base_layer.weight.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        module(batch)["total"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.trainable_modules())


def test_full_training_is_float32_whatever_the_files_dtype(wan_folder):
    pipe = load_wan(str(wan_folder), components=("dit",), dtype=torch.bfloat16)
    module = WanAlphaTrainingModule(pipe, AdapterSettings(kind="full"))
    assert {parameter.dtype for parameter in pipe.dit.parameters()} == {torch.float32}
    assert len(module.trainable_param_names()) == len(list(pipe.dit.parameters()))


def test_diffsynths_export_and_mapping_keep_magnitudes(make_module):
    module = make_module()
    move_adapter(module)
    exported = module.export_trainable_state_dict(module.state_dict(), remove_prefix="pipe.dit.")
    assert "blocks.0.self_attn.q.lora_magnitude_vector.default.weight" in exported
    assert len(exported) == 60
    saved = {name.replace(".default.weight", ".weight"): value for name, value in exported.items()}
    assert module.mapping_lora_state_dict(saved).keys() == exported.keys()
    assert module.mapping_lora_state_dict(exported).keys() == exported.keys()


@torch.no_grad()
def test_dropped_captions_see_the_empty_context(make_module, batch):
    always, never = make_module(caption_dropout=0.999999), make_module()
    empty = {**batch, "context": always.empty_context.expand_as(batch["context"])}
    torch.testing.assert_close(always(batch)["total"], never(empty)["total"], atol=0, rtol=TOLERANCE["relative"])
    assert abs(float(always(batch)["total"]) - float(never(batch)["total"])) > 1e-6


def test_caption_dropout_needs_the_empty_context(wan_folder):
    pipe = load_wan(str(wan_folder), components=("dit",))
    with pytest.raises(ConfigError, match="empty caption"):
        WanAlphaTrainingModule(pipe, objective=ObjectiveSettings(caption_dropout=0.1))


def test_the_validation_loss_always_asks_the_same(make_module, cache_folder):
    module = make_module()
    dataset = LatentCacheDataset(LatentCache.open(cache_folder))
    first = validation_loss(module, dataset)
    dataset.set_epoch(3)
    torch.manual_seed(9)
    assert validation_loss(module, dataset) == first
    move_adapter(module)
    assert validation_loss(module, dataset)["loss"] != first["loss"]


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_a_run_moves_the_adapter_and_its_file_changes_the_output(make_recipe, wan_folder, batch, kind):
    recipe = make_recipe(**{"adapter.kind": kind, "validation_cache": make_recipe().cache})
    result = train_dit(recipe)
    assert result.step == 3 and all(loss > 0 for loss in result.losses)
    rows = [json.loads(line) for line in (recipe.output_dir / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "loss", "velocity_mse", "learning_rate"} <= rows[0].keys()
    assert "initial_validation_loss" in rows[0] and "validation_loss" in rows[-1]

    path = recipe.output_dir / "adapter.safetensors"
    tensors, metadata = load_file(path), read_metadata(path)
    assert (metadata["kind"], metadata["rank"], float(metadata["alpha"])) == (kind, "4", 8.0)
    assert "blocks.0.self_attn.q.lora_A.default.weight" in tensors
    assert all(value.abs().max() > 0 for name, value in tensors.items() if "lora_B" in name)

    timesteps = torch.full((3,), 500.0)
    plain = load_wan(str(wan_folder), components=("dit",)).dit
    base = {name: value.clone() for name, value in plain.state_dict().items()}
    with torch.no_grad():
        before = predict_velocity(plain, batch["latents"], timesteps, batch["context"])
        add_adapter(plain, kind, 4, 8)
        load_adapter(plain, path)
        adapted = predict_velocity(plain, batch["latents"], timesteps, batch["context"])
        merged = load_wan(str(wan_folder), components=("dit",)).dit
        merged.load_state_dict(merge_adapter(base, path))
        baked = predict_velocity(merged, batch["latents"], timesteps, batch["context"])
    assert (adapted - before).abs().max() > 1e-3
    torch.testing.assert_close(baked, adapted, atol=1e-4, rtol=0)


def test_full_training_writes_a_dit_that_loads(make_recipe, wan_folder):
    changes = {"adapter.kind": "full", "adapter.rank": "absent", "adapter.alpha": "absent", "training.max_steps": 1}
    recipe = make_recipe(**changes)
    train_dit(recipe)
    path = recipe.output_dir / "dit.safetensors"
    before = load_wan(str(wan_folder), components=("dit",)).dit.state_dict()
    trained = load_file(path)
    assert trained.keys() == before.keys()
    assert any(not torch.equal(trained[name], before[name]) for name in before)
    assert load_wan([str(path)], components=("dit",)).dit.state_dict().keys() == before.keys()


def test_the_same_command_again_continues_exactly(make_recipe, tmp_path):
    whole = train_dit(make_recipe(output_dir=tmp_path / "whole"))
    train_dit(make_recipe(output_dir=tmp_path / "halves", **{"training.max_steps": 1}))
    rest = train_dit(make_recipe(output_dir=tmp_path / "halves"))
    assert rest.resumed_from == 1
    assert rest.losses == whole.losses
    ours, theirs = (load_file(tmp_path / name / "adapter.safetensors") for name in ("halves", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_another_base_under_the_same_name_is_no_continuation(make_recipe, wan_folder, tmp_path):
    path = tmp_path / "dit.safetensors"
    dit = load_wan(str(wan_folder), components=("dit",)).dit
    weights, said = dit.state_dict(), {"num_heads": str(dit.blocks[0].self_attn.num_heads)}
    changes = {"model.dit": path, "training.max_steps": 1}
    save_file(weights, path, said)
    train_dit(make_recipe(**changes))
    other = {name: value * 1.5 for name, value in weights.items()}
    save_file(other, path, said)
    there, here = rounded_sha256(weights), rounded_sha256(other)
    with pytest.raises(
        ConfigError, match=f"other base weights:\n  model.dit, {path}: sha256 {there} there, {here} here"
    ):
        train_dit(make_recipe(**changes | {"training.max_steps": 2}))
    save_file(weights, path, said)
    assert train_dit(make_recipe(**changes | {"training.max_steps": 2})).resumed_from == 1


def without_recipe(contents):
    """An adapter's metadata holds its recipe, and that its output folder: the tensors are what is compared."""
    return {name: value for name, value in contents.items() if name != "adapter.safetensors"}


def test_stopped_after_every_step_it_is_the_same_run(make_recipe, tmp_path, monkeypatch, cache_folder):
    changes = {"training.max_steps": NUM_STOPPED_STEPS, "training.ema_decay": 0.9, "objective.caption_dropout": 0.3}
    changes |= {"validation_cache": cache_folder, "training.validate_every": 2, "training.schedule": "cosine"}
    whole = train_dit(make_recipe(output_dir=tmp_path / "whole", **changes))
    stopped = make_recipe(output_dir=tmp_path / "stopped", **changes)
    result = train_stopping(train_dit, stopped, WanAlphaTrainingModule, monkeypatch)
    assert (result.resumed_from, result.losses) == (NUM_STOPPED_STEPS - 1, whole.losses)
    ours, theirs = (everything(tmp_path / name) for name in ("stopped", "whole"))
    assert {"ema.safetensors", "optimizer.safetensors", "adapter.safetensors"} <= set(ours)
    assert without_recipe(ours) == without_recipe(theirs)
    ours, theirs = (load_file(tmp_path / name / "adapter.safetensors") for name in ("stopped", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_each_checkpoint_has_an_adapter_that_loads(make_recipe, wan_folder):
    recipe = make_recipe(**{"training.checkpoint_every": 1, "training.keep_checkpoints": 3})
    train_dit(recipe)
    base = load_wan(str(wan_folder), components=("dit",)).dit.state_dict()
    folders = sorted((recipe.output_dir / "checkpoints").iterdir())
    merged = [merge_adapter(base, folder / "adapter.safetensors") for folder in folders]
    name = "blocks.0.self_attn.q.weight"
    assert len({tensor.sum().item() for tensor in [base[name], *(weights[name] for weights in merged)]}) == 4
    final = recipe.output_dir / "adapter.safetensors"
    assert torch.equal(merge_adapter(base, final)[name], merged[-1][name])
    assert read_metadata(folders[-1] / "adapter.safetensors") == read_metadata(final)


@pytest.mark.parametrize("kind", ["dora", "full"])
def test_what_was_trained_says_where_it_is_from(kind, make_recipe, wan_folder, monkeypatch):
    """The date is the run's start, in every file and in a continued run; SOURCE_DATE_EPOCH stands for the clock."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    changes = {"adapter.kind": kind, "title": "Glass", "trigger_words": "glasslook, tinted"}
    if kind == "full":
        changes |= {"adapter.rank": "absent", "adapter.alpha": "absent"}
    train_dit(make_recipe(**changes | {"training.max_steps": 1}))
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    recipe = make_recipe(**changes | {"training.max_steps": 2})
    train_dit(recipe)
    path = recipe.output_dir / ("dit.safetensors" if kind == "full" else "adapter.safetensors")
    card = read_adapter_card(path)
    assert (card.title, card.trigger_words, card.tokens) == ("Glass", ("glasslook", "tinted"), ())
    assert card.date == "2023-11-14T22:13:20Z" and card.architecture == ("wan-24" if kind == "full" else "wan-24/lora")
    assert card.base_sha256 == weights_sha256(load_wan(str(wan_folder), components=("dit",)).dit)
    assert card.recipe_sha256 == recipe_sha256(recipe.as_dict())
    assert card.resolution == "32x32"


def test_a_retrained_stage_1_makes_the_cache_stale(tmp_path, make_cache_recipe, make_recipe, reference_dir):
    files = (reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin")
    vae = RGBAlphaVAE.from_pretrained(*files)
    weights = tmp_path / "rgba_vae.safetensors"
    vae.save(weights)
    recipe = make_cache_recipe(tmp_path / "cache", **{"model.rgba_weights": weights})
    build_cache(recipe)
    with torch.no_grad():
        next(vae.alpha.parameters()).mul_(1.01)
    vae.save(weights)
    open_fresh_cache(tmp_path / "cache")  # a decoder does not shape latents
    with torch.no_grad():
        next(vae.merge.parameters()).mul_(1.01)
    vae.save(weights)
    with pytest.raises(DataError, match=r"stale: .*rgba_vae\.safetensors changed.*wan-alpha cache"):
        train_dit(make_recipe(cache=tmp_path / "cache"))
    build_cache(recipe)
    assert train_dit(make_recipe(cache=tmp_path / "cache", **{"training.max_steps": 1})).step == 1


def test_a_cache_that_was_built_anew_is_no_continuation(tmp_path, make_cache_recipe, make_recipe, reference_dir):
    """Neither a run that is going on nor a finished one: its adapter was made for the former latents."""
    vae = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin")
    weights = tmp_path / "rgba_vae.safetensors"
    vae.save(weights)
    cache_recipe = make_cache_recipe(tmp_path / "cache", **{"model.rgba_weights": weights})
    build_cache(cache_recipe)
    recipe = make_recipe(cache=tmp_path / "cache", **{"training.max_steps": 1})
    train_dit(recipe)
    build_cache(cache_recipe)
    assert train_dit(recipe).was_finished
    with torch.no_grad():
        next(vae.merge.parameters()).mul_(1.01)
    vae.save(weights)
    build_cache(cache_recipe)
    for max_steps in (1, 2):
        with pytest.raises(ConfigError, match="other data: .*the RGBA VAE that made the latents.*another output_dir"):
            train_dit(make_recipe(cache=tmp_path / "cache", **{"training.max_steps": max_steps}))


def test_a_lost_adapter_is_written_again(make_recipe):
    recipe = make_recipe(**{"training.max_steps": 1})
    train_dit(recipe)
    path = recipe.output_dir / "adapter.safetensors"
    before = load_file(path)
    path.unlink()
    assert train_dit(recipe).was_finished
    assert all(torch.equal(value, before[name]) for name, value in load_file(path).items())


def test_a_trained_dora_file_is_what_the_paper_says(make_module, make_recipe, wan_folder, batch):
    """The file read as bare tensors, and merged by Liu et al.'s equation 5 alone: the adapted model's own output."""
    recipe = make_recipe()
    train_dit(recipe)
    path = recipe.output_dir / "adapter.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        scale = float(file.metadata()["alpha"]) / int(file.metadata()["rank"])
    base = load_file(wan_folder / "diffusion_pytorch_model.safetensors")
    layers = [
        name.removesuffix(".lora_A.default.weight") for name in tensors if name.endswith(".lora_A.default.weight")
    ]
    assert len(layers) == 20 and len(tensors) == 60
    for layer in layers:
        down, up, magnitude = (
            tensors[f"{layer}.{part}.default.weight"] for part in ("lora_A", "lora_B", "lora_magnitude_vector")
        )
        direction = base[f"{layer}.weight"] + scale * up @ down
        norms = direction.square().sum(dim=1).sqrt()
        base[f"{layer}.weight"] = (magnitude / norms)[:, None] * direction

    adapted = make_module()
    load_adapter(adapted.pipe.dit, path)
    timesteps = torch.tensor([100.0, 500.0, 900.0])
    with torch.no_grad():
        expected = predict_velocity(adapted.pipe.dit, batch["latents"], timesteps, batch["context"])
        plain = load_wan(str(wan_folder), components=("dit",)).dit
        untrained = predict_velocity(plain, batch["latents"], timesteps, batch["context"])
        plain.load_state_dict(base)
        merged = predict_velocity(plain, batch["latents"], timesteps, batch["context"])
    torch.testing.assert_close(merged, expected, atol=TOLERANCE["float32"], rtol=TOLERANCE["relative"])
    assert (merged - untrained).abs().max() > 1e-3


def test_a_truncated_item_stops_the_run_with_its_name(tmp_path, make_cache_recipe, make_recipe):
    build_cache(make_cache_recipe(tmp_path / "cache"))
    path = item_path(tmp_path / "cache", LatentCache.open(tmp_path / "cache").keys[0])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=path.name):
        train_dit(make_recipe(cache=tmp_path / "cache"))


def test_caches_of_different_encoders_do_not_go_together(tmp_path, make_cache_recipe, make_recipe):
    held_out = write_dataset(tmp_path / "dataset", num_clips=1, first_seed=50)
    other = write_wan(tmp_path / "wan", seed=1)
    build_cache(make_cache_recipe(tmp_path / "cache", **{"data.base_path": held_out, "model.wan": str(other)}))
    with pytest.raises(DataError, match="another text encoder"):
        train_dit(make_recipe(validation_cache=tmp_path / "cache"))


@torch.no_grad()
def test_each_size_has_the_shift_of_its_tokens(make_module, batch):
    """The loss of latents of two sizes is that of fixed shifts, which Flux's line gives for 4 and 16 tokens."""
    by_tokens = make_module(shift_from="tokens", shift_tokens=(4, 16), shift_logs=(0.0, 1.2))
    small, large = batch, dict(batch)
    large["latents"] = batch["latents"].repeat(1, 1, 1, 2, 2)
    large["ellipse"] = batch["ellipse"].repeat(1, 1, 2, 2)
    for sized, shift in ((small, 2.718281828**0.4), (large, 2.718281828**2.8)):
        assert sized["latents"].shape[2] == 2
        fixed = make_module(shift=shift)
        torch.testing.assert_close(by_tokens(sized)["total"], fixed(sized)["total"], rtol=1e-5, atol=0)
