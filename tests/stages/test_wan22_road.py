"""The whole road on TI2V-5B's kind of model, in miniature: train the VAE, cache, train the DiT, resume, generate."""

import json

import pytest
import torch
from tiny_wan_files import write_dataset, write_wan22

from wan_alpha.errors import ConfigError
from wan_alpha.inference.generate import generate
from wan_alpha.media.read import read_rgba
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.stage1_vae import train_vae
from wan_alpha.stages.stage2_dit import train_dit
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import CacheRecipe, GenerateRecipe, TrainDiTRecipe, TrainVAERecipe
from wan_alpha.weights.io import load_state_dict


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory):
    return write_wan22(tmp_path_factory.mktemp("wan22") / "Wan2.2-TI2V-tiny")


@pytest.fixture(scope="module")
def clips_folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("wan22") / "clips", num_clips=2, size=64)


@pytest.fixture(scope="module")
def make_vae_recipe(wan_folder, clips_folder):
    def make(folder, **changes):
        options = {
            "output_dir": folder, "model.base_vae": wan_folder / "Wan2.2_VAE.pth", "model.lora_rank": 4,
            "data.base_path": clips_folder, "data.num_frames": 5, "data.height": 48, "data.width": 48,
            "loss.perceptual": "none", "training.max_steps": 2, "training.learning_rate": 1e-3,
            "training.device": "cpu",
        }  # fmt: skip
        return load_recipe(TrainVAERecipe, overrides=options | changes)

    return make


@pytest.fixture(scope="module")
def stage1(tmp_path_factory, make_vae_recipe):
    """(folder, result) of a short stage 1; 48 pixels are on the VAE's own grid, if not on the DiT's."""
    folder = tmp_path_factory.mktemp("wan22") / "stage1"
    return folder, train_vae(make_vae_recipe(folder))


@pytest.fixture(scope="module")
def make_cache_recipe(wan_folder, clips_folder, stage1):
    def make(folder, **changes):
        options = {
            "output_dir": folder, "model.wan": str(wan_folder), "model.base_vae": wan_folder / "Wan2.2_VAE.pth",
            "model.rgba_weights": stage1[0] / "rgba_vae.safetensors", "data.base_path": clips_folder,
            "data.num_frames": 5, "data.height": 64, "data.width": 64, "device": "cpu",
        }  # fmt: skip
        return load_recipe(CacheRecipe, overrides=options | changes)

    return make


def test_stage1_trains_and_resumes(tmp_path, make_vae_recipe, stage1):
    folder, straight = stage1
    train_vae(make_vae_recipe(tmp_path, **{"training.max_steps": 1}))
    resumed = train_vae(make_vae_recipe(tmp_path))
    assert resumed.resumed_from == 1 and resumed.losses == straight.losses
    straight, resumed = (load_state_dict(run / "rgba_vae.safetensors") for run in (folder, tmp_path))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.fixture
def make_dit_recipe(wan_folder, cache_folder):
    def make(folder, **changes):
        options = {
            "output_dir": folder, "model.wan": str(wan_folder), "cache": cache_folder, "adapter.rank": 4,
            "adapter.alpha": 4, "training.max_steps": 2, "training.learning_rate": 1e-2, "training.device": "cpu",
        }  # fmt: skip
        return load_recipe(TrainDiTRecipe, overrides=options | changes)

    return make


def test_stage2_trains_resumes_and_generates(tmp_path, make_dit_recipe, wan_folder, stage1):
    straight = train_dit(make_dit_recipe(tmp_path / "straight"))
    train_dit(make_dit_recipe(tmp_path / "stopped", **{"training.max_steps": 1}))
    resumed = train_dit(make_dit_recipe(tmp_path / "stopped"))
    assert resumed.resumed_from == 1 and resumed.losses == straight.losses
    adapters = [load_state_dict(tmp_path / run / "adapter.safetensors") for run in ("straight", "stopped")]
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])

    options = {
        "output_dir": tmp_path / "out", "prompt": "a red circle", "model.wan": str(wan_folder),
        "model.base_vae": wan_folder / "Wan2.2_VAE.pth", "model.rgba_weights": stage1[0] / "rgba_vae.safetensors",
        "model.adapter": tmp_path / "straight" / "adapter.safetensors", "num_frames": 5, "height": 64, "width": 96,
        "num_steps": 2, "guidance": 1.0, "formats": "png", "device": "cpu",
    }  # fmt: skip
    (clip,) = generate(load_recipe(GenerateRecipe, overrides=options), progress=False)
    assert read_rgba(clip.folder / "frames").shape == (5, 64, 96, 4)
    assert json.loads((clip.folder / "settings.json").read_text())["models"]["base_vae"]["sha256"]

    with pytest.raises(ConfigError, match="height = 48: with the Wan2.2 VAE sizes are multiples of 32; try 64"):
        generate(load_recipe(GenerateRecipe, overrides=options | {"height": 48}), progress=False)


def test_a_cache_off_the_models_grid_is_refused(tmp_path, make_cache_recipe):
    with pytest.raises(ConfigError, match="data.width = 80: .*multiples of 32; try 64"):
        build_cache(make_cache_recipe(tmp_path / "cache", **{"data.width": 80}))
