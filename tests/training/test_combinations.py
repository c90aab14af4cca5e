"""What the registry says of options that do and do not combine: each entry is what recipes and commands do."""

import pytest

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.training.config import load_recipe, option_values
from wan_alpha.training.recipes import CacheRecipe, GenerateRecipe, TrainDiTRecipe
from wan_alpha.weights.combinations import VERDICTS, check_combinations, combinations, combinations_of
from wan_alpha.weights.registry import known_models

BASE = {
    TrainDiTRecipe: {"output_dir": "out", "model.wan": "wan", "cache": "cache", "training.max_steps": 5},
    GenerateRecipe: {
        "output_dir": "out", "prompt": "a cat", "model.wan": "wan", "model.base_vae": "vae.pth",
        "model.decoder_lora": "decoder.bin",
    },
    CacheRecipe: {
        "output_dir": "out", "model.wan": "wan", "model.base_vae": "vae.pth", "model.rgba_weights": "rgba.safetensors",
        "data.base_path": "clips",
    },
}  # fmt: skip
# What "given" is given as, and what else an option needs to be given at all.
GIVEN = {
    "mask": "m.pt", "noise_shift": 0.05, "model.adapter": "a.safetensors", "model.embeddings": "e.safetensors",
    "model.distillation_lora": "d.safetensors", "negative_prompt": "blurry", "model.dit": "dit.safetensors",
    "textual_inversion.placeholder": "<cat>", "training.gradient_checkpointing": True, "model.boundary": 0.9,
    "training.preview_every": 5, "model.adapter_low_noise": "l.safetensors", "model.wan": "wan",
    "model.distillation_lora_low_noise": "l.safetensors", "model.base_vae": "vae.pth", "model.expert": "high_noise",
    "model.quantization": "nf4",
}  # fmt: skip
NEEDS = {
    "textual_inversion.placeholder": {"textual_inversion.initializer": "cat"},
    "training.preview_every": {"preview.base_vae": "v.pth", "preview.decoder_lora": "d.bin"},
}
WHOLE = {"num_experts": 1, "latent_channels": 16, "takes_image": False, "base_vae_channels": 16}


def changes(name, condition, holds):
    """Options under which a condition holds, or does not; None where there are none such."""
    if condition in ("given", "left out"):
        is_given = (condition == "given") == holds
        if not is_given:
            return {} if all(name not in given for given in BASE.values()) else None
        return {name: GIVEN[name]} | NEEDS.get(name, {})
    if isinstance(condition, list):
        return {name: condition[0]} if holds else {}
    ((test, limit),) = condition.items()
    near = {"other than": (2.0, limit), "above": (limit + 1, limit), "not multiple of": (limit + 16, limit)}
    return {name: near[test][not holds]}


def recipe_class_of(pair):
    def has(recipe_class):
        return set(pair.options) <= set(option_values(load_recipe(recipe_class, overrides=BASE[recipe_class])))

    return next(recipe_class for recipe_class in BASE if has(recipe_class))


def outcome(pair, given, facts):
    """ "refused" with its message, or "told" with the notes, as a command would say it."""
    recipe_class = recipe_class_of(pair)
    try:
        recipe = load_recipe(recipe_class, overrides=BASE[recipe_class] | given)
        return "told", check_combinations(option_values(recipe), facts)
    except (ConfigError, CheckpointError) as error:
        return "refused", str(error)


@pytest.mark.parametrize("pair", combinations(), ids=lambda pair: pair.describe()[:70])
def test_every_entry_is_what_happens(pair):
    assert pair.verdict in VERDICTS and len(pair.options) + len(pair.model) >= 2 and pair.reason
    given = {}
    for name, condition in pair.options.items():
        given |= changes(name, condition, holds=True)
    # An expert and a boundary alone are refused for a model that has none: the facts must be the pair's.
    facts = WHOLE | ({"latent_channels": 48, "base_vae_channels": 48} if "latent_channels" in pair.model else {})
    facts |= {"num_experts": 2} if "model.expert" in pair.options else {}
    kind, said = outcome(pair, given, facts | pair.model)
    if pair.verdict == "refused":
        assert kind == "refused" and pair.reason in said
    else:
        assert kind == "told" and (pair.reason in said) == (pair.verdict == "told")
    if pair.verdict == "fits":
        return
    # One side the other way round, and the pair is no matter any more.
    others = [(given | other, pair.model) for name in pair.options for other in [without(pair, name, given)] if other]
    others += [(given, pair.model | {name: opposite(value)}) for name, value in pair.model.items()]
    for other, model in others:
        _, said = outcome(pair, {k: v for k, v in other.items() if v is not None}, facts | model)
        assert pair.reason not in said
    assert others


def without(pair, name, given):
    other = changes(name, pair.options[name], holds=False)
    return None if other is None else {key: None for key in (name, *NEEDS.get(name, ())) if key in given} | other


def opposite(value):
    return not value if isinstance(value, bool) else {1: 2, 2: 1, 16: 48, 48: 16}[value]


def test_commands_ask_before_they_load_anything(tmp_path, monkeypatch):
    """The model's facts come from its headers; the note goes to standard error."""
    from real_size_headers import write_family

    from wan_alpha.inference.generate import generate
    from wan_alpha.stages.cache_latents import build_cache
    from wan_alpha.stages.stage2_dit import train_dit

    monkeypatch.setattr("wan_alpha.models.load.fill_module", lambda *_: pytest.fail("weights were read"))
    folder, vae = tmp_path / "i2v", tmp_path / "i2v" / "Wan2.1_VAE.pth"
    write_family(folder, "Wan2.1-I2V-14B")
    for run, recipe_class in ((generate, GenerateRecipe), (build_cache, CacheRecipe), (train_dit, TrainDiTRecipe)):
        given = BASE[recipe_class] | {"model.wan": str(folder)}
        given |= {"model.base_vae": str(vae)} if "model.base_vae" in given else {}
        with pytest.raises(ConfigError, match="image-to-video model is recognised and loaded only"):
            run(load_recipe(recipe_class, overrides=given))
    write_family(tmp_path / "5b", "Wan2.2-TI2V-5B")
    five = BASE[GenerateRecipe] | {"model.wan": str(tmp_path / "5b"), "model.base_vae": str(vae)}
    with pytest.raises(CheckpointError, match=f"{vae}: a VAE of 16 latent channels.*takes 48.*Wan2.2_VAE.pth"):
        generate(load_recipe(GenerateRecipe, overrides=five))
    own = five | {"model.base_vae": str(tmp_path / "5b" / "Wan2.2_VAE.pth"), "height": 720}
    with pytest.raises(ConfigError, match="height = 720: .*multiples of 32; try 704"):
        generate(load_recipe(GenerateRecipe, overrides=own))


def test_a_family_has_entries_of_its_own_and_no_others():
    found = {name: combinations_of(model.facts) for name, model in known_models().items()}
    assert any("two experts" in pair.reason for pair in found["Wan2.2-T2V-A14B"])
    assert any("multiples of 32" in pair.reason for pair in found["Wan2.2-TI2V-5B"])
    assert not any("multiples of 32" in pair.reason for pair in found["Wan2.1-T2V-14B"])
    assert [pair.options for pair in found["Wan2.1-I2V-14B"] if "image" in pair.reason] == [{"model.wan": "given"}]
