"""Previews of both stages: the same clips each time, as strips in the run's folder, and the run as without them."""

import numpy as np
import pytest
from PIL import Image
from test_dry_run import given  # noqa: F401 (a fixture)

from wan_alpha.errors import ConfigError
from wan_alpha.stages.stage1_vae import train_vae
from wan_alpha.stages.stage2_dit import train_dit
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import TrainDiTRecipe, TrainVAERecipe

WITH = {"training.preview_every": 1, "training.max_steps": 2, "training.trackers": ""}


def strips(folder):
    return {
        str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in (folder / "previews").rglob("*.png")
    }


@pytest.fixture
def decoders(reference_dir):
    return {
        "preview.base_vae": reference_dir / "base_vae.safetensors",
        "preview.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin",
        "preview.num_steps": 2,
    }


@pytest.fixture
def make_recipe(given, tmp_path):  # noqa: F811
    def make(command, name, **changes):
        recipe_class = {"train-vae": TrainVAERecipe, "train-dit": TrainDiTRecipe}[command]
        overrides = given[command] | {"output_dir": tmp_path / name, "training.max_steps": 2} | changes
        texts = {key: str(value) if key == "model.wan" else value for key, value in overrides.items()}
        return load_recipe(recipe_class, overrides=texts)

    return make


def test_stage_1_shows_reconstructions(tmp_path, make_recipe):
    plain = train_vae(make_recipe("train-vae", "plain"))
    shown = train_vae(make_recipe("train-vae", "shown", **WITH))
    assert shown.losses == plain.losses
    found = strips(tmp_path / "shown")
    assert sorted(found) == [f"previews/step_0000000{step}/clip_{clip}.png" for step in (1, 2) for clip in (0, 1)]
    assert {strip.shape for strip in found.values()} == {(5 * 32, 5 * 32, 3)}
    first, second = (found[f"previews/step_0000000{step}/clip_0.png"] for step in (1, 2))
    assert (first != second).any()  # the average of the weights moved


def test_stage_2_shows_samples(tmp_path, make_recipe, decoders):
    plain = train_dit(make_recipe("train-dit", "plain"))
    shown = train_dit(make_recipe("train-dit", "shown", **WITH, **decoders))
    assert shown.losses == plain.losses
    found = strips(tmp_path / "shown")
    assert sorted(found) == [f"previews/step_0000000{step}/prompt_{clip}.png" for step in (1, 2) for clip in (0, 1)]
    assert {strip.shape for strip in found.values()} == {(5 * 32, 5 * 32, 3)}


def test_captions_may_be_chosen_among_the_caches(tmp_path, make_recipe, decoders):
    chosen = {**WITH, **decoders, "training.max_steps": 1}
    train_dit(make_recipe("train-dit", "one", **chosen, **{"preview.prompts": ["a blue circle, moving"]}))
    assert sorted(strips(tmp_path / "one")) == ["previews/step_00000001/prompt_0.png"]
    with pytest.raises(ConfigError, match="no clip of .* has the caption 'a cat'.*a red circle, moving"):
        train_dit(make_recipe("train-dit", "two", **chosen, **{"preview.prompts": ["a cat"]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.preview_every": 1}, "give preview.base_vae and preview.rgba_weights"),
        ({"preview.num_steps": 3}, "preview.num_steps has no effect without training.preview_every"),
    ],
)
def test_what_cannot_be_shown_is_refused(make_recipe, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_recipe("train-dit", "refused", **changes)
