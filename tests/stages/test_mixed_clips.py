"""Both stages on clips of several sizes, datasets and captions, in batches of more than one."""

import pytest
import torch
from stop_every_step import everything, train_stopping
from tiny_wan_files import write_dataset

from wan_alpha.data.cached_samples import LatentCacheDataset
from wan_alpha.data.latent_cache import LatentCache, pad_context
from wan_alpha.models.wan import encode_prompts, load_wan
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.stage1_vae import ReconstructionModule, held_out_clips, train_vae
from wan_alpha.stages.stage2_dit import WanAlphaTrainingModule, train_dit
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import TrainDiTRecipe, TrainVAERecipe
from wan_alpha.training.run_folder import read_metrics

CAPTIONS = ("a red circle", "a red circle, moving", "something red")


@pytest.fixture(scope="module")
def two_datasets(tmp_path_factory):
    """Three clips of 5 frames, and two of 9 of which one has three captions."""
    top = tmp_path_factory.mktemp("datasets")
    write_dataset(top / "short", num_clips=3, num_frames=5)
    write_dataset(top / "long", num_clips=2, num_frames=9, first_seed=9)
    quoted = '"[""a red circle"", ""a red circle, moving"", ""something red""]"'
    (top / "long" / "metadata.csv").write_text(f"video,prompt\n000_rgb.mkv,{quoted}\n001_rgb.mkv,a blue circle\n")
    return [{"base_path": top / "short", "weight": 1}, {"base_path": top / "long", "weight": 2}]


@pytest.fixture(scope="module")
def mixed_cache(tmp_path_factory, make_cache_recipe, two_datasets):
    """(recipe, report, cache) of both, at two sizes."""
    changes = {"data.datasets": two_datasets, "data.base_path": None, "data.buckets.shapes": "5x32x32,9x32x32"}
    recipe = make_cache_recipe(tmp_path_factory.mktemp("cache"), **changes, **{"data.num_frames": 81})
    return recipe, build_cache(recipe), LatentCache.open(recipe.output_dir)


def test_the_cache_holds_every_size_and_caption(mixed_cache, two_datasets, wan_folder):
    recipe, report, cache = mixed_cache
    cache.verify()
    assert (report.num_items, report.built) == (5, 5)
    assert [tuple(cache.read(index).latents.shape[1:]) for index in range(5)] == [(2, 4, 4)] * 3 + [(3, 4, 4)] * 2
    assert cache.index.preprocessing["buckets"] == ["5x32x32", "9x32x32"]
    assert [(part["num_items"], part["weight"]) for part in cache.index.parts] == [(3, 1.0), (2, 2.0)]
    item, pipe = cache.read(3), load_wan(str(wan_folder), components=("text_encoder", "tokenizer"))
    assert tuple(prompt for prompt, _ in item.captions) == CAPTIONS
    for prompt, context in item.captions:
        expected = encode_prompts(pipe, [prompt])[0]
        torch.testing.assert_close(pad_context(context, len(expected)), expected, atol=1e-5, rtol=0)
    assert build_cache(recipe).reused == 5


def test_a_size_alone_makes_the_same_items_as_its_bucket(tmp_path, mixed_cache, make_cache_recipe, two_datasets):
    alone = make_cache_recipe(tmp_path, **{"data.base_path": two_datasets[0]["base_path"]})
    build_cache(alone)
    assert LatentCache.open(tmp_path).keys == mixed_cache[2].keys[:3]


def test_other_weights_change_the_index_alone(mixed_cache, make_cache_recipe, two_datasets):
    recipe, _, cache = mixed_cache
    heavier = recipe.model_copy(deep=True)
    heavier.data.datasets[1].weight = 3.0
    assert build_cache(heavier).built == 0
    assert LatentCache.open(recipe.output_dir).index.parts[1]["weight"] == 3.0
    assert build_cache(recipe).built == 0


def test_stage_two_trains_in_batches_by_size_and_resumes_exactly(
    tmp_path, mixed_cache, wan_folder, monkeypatch, capsys
):
    def recipe(name):
        overrides = {
            "output_dir": tmp_path / name, "model.wan": str(wan_folder), "cache": mixed_cache[0].output_dir,
            "adapter.rank": 4, "adapter.alpha": 8, "training.max_steps": 6, "training.learning_rate": 1e-2,
            "training.device": "cpu", "training.batch_size": 2, "objective.caption_dropout": 0.3,
            "objective.timesteps": "logit_normal", "objective.shift_from": "tokens", "objective.weighting": "min_snr",
        }  # fmt: skip
        return load_recipe(TrainDiTRecipe, overrides=overrides)

    shapes, original = [], WanAlphaTrainingModule.forward

    def forward(module, batch):
        shapes.append(tuple(batch["latents"].shape[0:3:2]))
        return original(module, batch)

    with monkeypatch.context() as patch:
        patch.setattr(WanAlphaTrainingModule, "forward", forward)
        whole = train_dit(recipe("whole"))
    # 3 short samples and 6 long ones in each epoch: three pairs of long, one of short, and one short alone.
    assert sorted(shapes[:5]) == [(1, 2), (2, 2), (2, 3), (2, 3), (2, 3)]
    said = capsys.readouterr().err
    assert "2x4x4" in said and "66.7%" in said
    result = train_stopping(train_dit, recipe("stopped"), WanAlphaTrainingModule, monkeypatch)
    assert (result.resumed_from, result.losses) == (5, whole.losses)
    ours, theirs = (everything(tmp_path / name) for name in ("stopped", "whole"))
    names = [name for name in theirs if name != "adapter.safetensors"]  # whose recipe names its folder
    assert ours.keys() == theirs.keys() and all(ours[name] == theirs[name] for name in names)


def test_the_samples_of_an_epoch_are_every_clip(mixed_cache):
    dataset = LatentCacheDataset(mixed_cache[2], seed=4)
    seen = [dataset.mixture.clip(index) for index in dataset.epoch_samples(0)]
    assert sorted(seen) == [0, 1, 2, 3, 3, 3, 4, 4, 4]


def test_stage_one_trains_in_batches_by_size_and_resumes_exactly(
    tmp_path, reference_dir, two_datasets, monkeypatch, capsys
):
    def recipe(name):
        overrides = {
            "output_dir": tmp_path / name, "model.base_vae": reference_dir / "base_vae.safetensors",
            "model.lora_rank": 4, "data.datasets": [dict(one, weight=None) for one in two_datasets],
            "data.buckets.shapes": "5x16x16,9x16x16", "data.ping_pong": False, "loss.perceptual": "none",
            "loss.temporal_weight": 1.0, "training.max_steps": 2, "training.learning_rate": 1e-3,
            "training.device": "cpu", "training.batch_size": 2,
        }  # fmt: skip
        return load_recipe(TrainVAERecipe, overrides=overrides)

    held_out = {"validation_metadata": two_datasets[1]["base_path"] / "metadata.csv", "validation_clips": 1}
    ((rgb, _),) = held_out_clips(recipe("whole").data.model_copy(update=held_out))
    assert rgb.shape == (1, 3, 17, 272, 272)  # of the recipe's own size, below its list's folder
    whole = train_vae(recipe("whole"))
    said = capsys.readouterr().err
    assert "9x16x16" in said and "left out: nothing" in said
    rows = read_metrics(tmp_path / "whole")
    assert all(row["temporal_rgb"] > 0 and row["temporal_alpha"] > 0 for row in rows)
    result = train_stopping(train_vae, recipe("stopped"), ReconstructionModule, monkeypatch)
    assert (result.resumed_from, result.losses) == (1, whole.losses)
    ours, theirs = (everything(tmp_path / name) for name in ("stopped", "whole"))
    assert all(ours[name] == theirs[name] for name in theirs if name != "rgba_vae.safetensors")
