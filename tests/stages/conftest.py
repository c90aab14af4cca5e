import pytest
from tiny_wan_files import write_dataset, write_wan

from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import CacheRecipe


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory):
    return write_wan(tmp_path_factory.mktemp("wan") / "Wan2.1-T2V-tiny")


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("clips") / "dataset")


@pytest.fixture(scope="session")
def make_cache_recipe(wan_folder, dataset_folder, reference_dir):
    """make_cache_recipe(folder, **{"dotted.name": value}) -> CacheRecipe over the tiny models and clips."""

    def make(folder, **changes):
        overrides = {
            "output_dir": folder, "model.wan": str(wan_folder),
            "model.base_vae": reference_dir / "base_vae.safetensors",
            "model.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin", "data.base_path": dataset_folder,
            "data.num_frames": 5, "data.height": 32, "data.width": 32, "device": "cpu",
        }  # fmt: skip
        return load_recipe(CacheRecipe, overrides=overrides | changes)

    return make


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory, make_cache_recipe):
    """A cache of the module's own models and clips, made once for it."""
    folder = tmp_path_factory.mktemp("cache") / "train"
    build_cache(make_cache_recipe(folder))
    return folder
