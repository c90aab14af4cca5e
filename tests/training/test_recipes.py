"""Recipes: defaults, files, overrides, and one clear line per problem."""

import json
from pathlib import Path

import pytest
from write_options import BLOCK, FROZEN, GUIDE, frozen_lines, guide_text, meaning

from wan_alpha.cli.main import COMMANDS
from wan_alpha.errors import ConfigError
from wan_alpha.training import recipes
from wan_alpha.training.config import Command, PlannedRecipe, Recipe, dotted_fields, list_presets, load_recipe
from wan_alpha.training.recipes import (
    CacheRecipe,
    ConvertRecipe,
    DemoRecipe,
    EvaluateRecipe,
    GenerateRecipe,
    PrepareRecipe,
    TrainDiTRecipe,
    TrainVAERecipe,
    ValidateVAERecipe,
)

VAE = {"output_dir": "out", "model.base_vae": "vae.pth", "data.base_path": "clips", "training.max_steps": "5"}
DIT = {"output_dir": "out", "model.wan": "wan", "cache": "cache", "training.max_steps": "5"}
GENERATE = {
    "output_dir": "out", "prompt": "a cat", "model.wan": "wan", "model.base_vae": "vae.pth",
    "model.decoder_lora": "decoder.bin",
}  # fmt: skip
RECIPE_CLASSES = tuple(recipe_class for recipe_class, _, _ in COMMANDS.values())


@pytest.mark.parametrize(
    "recipe_class, given, change, messages",
    [
        (TrainVAERecipe, VAE, {"data.num_frames": "16"}, ["data.num_frames = '16'", "13 or 17"]),
        (TrainVAERecipe, VAE, {"data.num_frames": "0"}, ["data.num_frames", "1 or 5"]),
        (TrainVAERecipe, VAE, {"data.height": "270"}, ["data.height = '270'", "256 or 272"]),
        (CacheRecipe, VAE, {"data.width": "8"}, ["data.width", "16 or 32"]),
        (
            TrainVAERecipe,
            VAE,
            {"training.lerning_rate": "1"},
            ["training.lerning_rate", "mean training.learning_rate?"],
        ),
        (
            TrainVAERecipe,
            VAE,
            {"learning_rate": "1"},
            ["learning_rate: no such option", "mean training.learning_rate?"],
        ),
        (TrainVAERecipe, VAE, {"training.learning_rate": "fast"}, ["training.learning_rate = 'fast'", "number"]),
        (TrainVAERecipe, VAE, {"training.learning_rate": "-1"}, ["training.learning_rate = '-1'", "greater than 0"]),
        (TrainVAERecipe, VAE, {"model.mode": "both"}, ["model.mode = 'both'", "'full' or 'merge'"]),
        (TrainVAERecipe, VAE, {"model.mode": "merge"}, ["model.decoder_lora", "decoder.bin"]),
        (TrainVAERecipe, VAE, {"training.max_steps": "none"}, ["training", "give max_steps or num_epochs"]),
        (
            TrainVAERecipe,
            VAE,
            {"model.lora_rank": "8", "model.decoder_lora": "d.bin"},
            ["model.lora_rank: no effect with given weights", "--model.lora_rank none"],
        ),
        (
            TrainVAERecipe,
            VAE,
            {"model.init": "random", "model.merge_width": "8", "model.rgba_weights": "w.safetensors"},
            ["model.init, model.merge_width: no effect", "write --model.init none --model.merge_width none"],
        ),
        (
            TrainVAERecipe,
            VAE,
            {"data.cache_clips": "true", "training.num_workers": "2"},
            ["data.cache_clips keeps clips in the training process", "num_workers = 2"],
        ),
        (
            TrainVAERecipe,
            VAE,
            {"training.keep_every": "700"},
            ["training: keep_every = 700", "a multiple of checkpoint_every = 500"],
        ),
        (TrainVAERecipe, VAE, {"training.keep_best": "alpha_psnr"}, ["no effect without validate_every"]),
        (TrainVAERecipe, VAE, {"training.best_is": "highest"}, ["no effect without keep_best"]),
        (TrainVAERecipe, VAE, {"data.validation_clips": "2"}, ["no effect without validation_metadata"]),
        (TrainDiTRecipe, DIT, {"training.ema_on_cpu": "true"}, ["ema_on_cpu has no effect without ema_decay"]),
        (TrainDiTRecipe, DIT, {"training.ema_decay": "1"}, ["training.ema_decay = '1'", "less than 1"]),
        (DemoRecipe, {}, {"num_clips": "0"}, ["num_clips = '0'", "greater than or equal to 1"]),
        (PrepareRecipe, {"output_dir": "out"}, {}, ["source_dir: missing; folder of clips"]),
        (EvaluateRecipe, {"pred": "p"}, {"fail_under": "alpha_psnr"}, ["fail_under = 'alpha_psnr'", "alpha_psnr=30"]),
        (EvaluateRecipe, {"pred": "p"}, {"fail_over": "flicker=low"}, ["fail_over = 'flicker=low'", "a number"]),
        (EvaluateRecipe, {"pred": "p"}, {"edge_radius": "3"}, ["edge_radius has no effect without a reference"]),
        (
            EvaluateRecipe,
            {"pred": "p", "reference": "r"},
            {"lpips": "off", "lpips_weights": "w.pth"},
            ["lpips_weights has no effect with lpips = 'off'"],
        ),
        (
            TrainVAERecipe,
            VAE,
            {"loss.perceptual": "none", "loss.perceptual_weights": "v"},
            ["perceptual_weights has no effect"],
        ),
        (TrainDiTRecipe, DIT, {"adapter.kind": "full", "adapter.rank": "8"}, ["adapter.rank has no effect"]),
        (
            TrainDiTRecipe,
            DIT,
            {"adapter.kind": "full", "model.quantization": "nf4"},
            ["model.quantization keeps", "adapter.kind = full trains them all", "dora or lora"],
        ),
        (
            TrainDiTRecipe,
            DIT,
            {"adapter.kind": "full", "training.offload_blocks": "true", "training.gradient_checkpointing": "true"},
            ["training.offload_blocks keeps", "adapter.kind = full", "FSDP2"],
        ),
        (
            TrainDiTRecipe,
            DIT,
            {"model.quantization": "fp8"},
            ["model.quantization = fp8 or int8 needs training.gradient_checkpointing = true"],
        ),
        (
            TrainDiTRecipe,
            DIT,
            {
                "model.quantization": "nf4",
                "training.offload_blocks": "true",
                "training.gradient_checkpointing": "true",
            },
            ["training.offload_blocks with model.quantization = nf4", "choose fp8 or int8"],
        ),
        (TrainDiTRecipe, DIT, {"model.quantization": "int4"}, ["model.quantization = 'int4'", "'nf4'"]),
        (
            TrainDiTRecipe,
            DIT,
            {"training.offload_blocks": "true"},
            ["offload_blocks needs training.gradient_checkpointing"],
        ),
        (TrainDiTRecipe, DIT, {"training.offload_activations": "true"}, ["offload_activations needs", "keeps"]),
        (TrainDiTRecipe, DIT, {"objective.caption_dropout": "1.5"}, ["objective.caption_dropout", "less than 1"]),
        (GenerateRecipe, GENERATE, {"prompts_file": "p.txt"}, ["prompt or prompts_file"]),
        (ConvertRecipe, {"source": "a.mov", "output": "b.mov"}, {"format": "mov"}, ["format = 'mov'", "'prores'"]),
        (GenerateRecipe, GENERATE, {"formats": "png,mov"}, ["formats.1 = 'mov'", "'prores'"]),
        (GenerateRecipe, GENERATE, {"formats": "png,png"}, ["png is named twice"]),
        (GenerateRecipe, GENERATE, {"formats": "still"}, ["still holds one frame"]),
        (GenerateRecipe, GENERATE, {"mask": "m.pt"}, ["mask and noise_shift work together"]),
        (GenerateRecipe, GENERATE, {"model.decoder_lora": "none"}, ["model.rgba_weights or model.decoder_lora"]),
    ],
)
def test_a_problem_is_named_with_what_would_be_right(recipe_class, given, change, messages):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_class, overrides=given | change)
    for message in messages:
        assert message in str(caught.value)


def test_every_problem_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        load_recipe(TrainVAERecipe, overrides={"data.num_frames": "16", "training.batch_size": "0"})
    text = str(caught.value)
    for name in (
        "output_dir: missing",
        "model.base_vae: missing",
        "data.base_path: missing",
        "data.num_frames",
        "batch_size",
    ):
        assert name in text


def test_overrides_win_over_the_file_and_text_becomes_values(tmp_path):
    config = tmp_path / "recipe.toml"
    config.write_text(
        'output_dir = "a"\n[model]\nbase_vae = "v"\n[data]\nbase_path = "d"\n'
        "[training]\nmax_steps = 9\nbatch_size = 3\n"
    )
    changes = {"training.learning_rate": "5e-5", "training.max_steps": "20", "data.augment": "false", "output_dir": "b"}
    recipe = load_recipe(TrainVAERecipe, config, changes | {"training.max_grad_norm": "none"})
    assert recipe.output_dir == Path("b") and recipe.data.augment is False
    settings = recipe.training
    assert (settings.learning_rate, settings.max_steps, settings.batch_size, settings.max_grad_norm) == (
        5e-5,
        20,
        3,
        None,
    )


def test_what_a_preset_says_of_new_parts_can_be_taken_back_for_given_weights():
    given = {"model.rgba_weights": "w.safetensors"}
    with pytest.raises(ConfigError, match="write --model.init none --model.lora_rank none"):
        load_recipe(TrainVAERecipe, "tiny_stage1", given)
    recipe = load_recipe(TrainVAERecipe, "tiny_stage1", given | {"model.init": "none", "model.lora_rank": "none"})
    assert (recipe.model.init, recipe.model.lora_rank) == (None, None)
    alone = load_recipe(TrainVAERecipe, overrides=VAE | {"model.decoder_lora": "d.bin", "model.init": "random"})
    assert alone.model.init == "random"  # decoders alone leave the merge block to begin anew


def test_the_demo_needs_nothing_given():
    recipe = load_recipe(DemoRecipe)
    assert (recipe.output_dir, recipe.num_clips, recipe.vae_steps) == (Path("wan_alpha_demo"), 96, None)


def test_lists_may_be_written_with_commas():
    recipe = load_recipe(TrainDiTRecipe, overrides=DIT | {"adapter.targets": "q, v"})
    assert recipe.adapter.targets == ("q", "v")


@pytest.mark.parametrize(
    "recipe_class, given", [(TrainVAERecipe, VAE), (TrainDiTRecipe, DIT), (GenerateRecipe, GENERATE)]
)
def test_a_saved_recipe_reads_back_equal(tmp_path, recipe_class, given):
    recipe = load_recipe(recipe_class, overrides=given)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.as_dict()))
    assert load_recipe(recipe_class, tmp_path / "recipe.json") == recipe


@pytest.mark.parametrize(
    "text, message", [("output_dir = \n", "line 1"), ("a = 1\na = 2\n", "recipe.toml: not a valid TOML file")]
)
def test_broken_files_are_named(tmp_path, text, message):
    config = tmp_path / "recipe.toml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(TrainVAERecipe, config)


def test_unknown_config_lists_the_presets():
    with pytest.raises(ConfigError, match="no such file, nor a preset; presets: .*stage1_rgba_vae"):
        load_recipe(TrainVAERecipe, "stage_one")


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_is_a_complete_recipe(name):
    """Complete but for what differs each time: the prompt, the clip to validate."""
    kinds = {
        "stage1": (TrainVAERecipe, {}),
        "stage2": (TrainDiTRecipe, {}),
        "cache": (CacheRecipe, {}),
        "validate": (ValidateVAERecipe, {"rgb_video": "001_rgb.mp4"}),
        "generate": (GenerateRecipe, {"prompt": "a star"}),
    }
    recipe_class, given = next(value for kind, value in kinds.items() if kind in name)
    recipe = load_recipe(recipe_class, name, given)
    paths = [getattr(recipe, field) for field in ("output_dir", "cache") if hasattr(recipe, field)]
    assert not any(path.is_absolute() for path in paths)


@pytest.mark.parametrize("recipe_class", RECIPE_CLASSES)
def test_every_option_explains_itself(recipe_class):
    for name, field in dotted_fields(recipe_class):
        assert field.description and len(field.description) > 10, name


@pytest.mark.parametrize("recipe_class", RECIPE_CLASSES)
def test_what_may_change_on_resume_exists(recipe_class):
    names = {name for name, _ in dotted_fields(recipe_class)}
    allowed = recipe_class.may_change_on_resume
    # Settings of memory only, which not every stage has.
    assert allowed - {"training.gradient_checkpointing"} <= names


def test_all_recipe_classes_are_looked_at_here():
    defined = {
        cls
        for cls in vars(recipes).values()
        if isinstance(cls, type) and issubclass(cls, Command) and cls not in (Command, Recipe, PlannedRecipe)
    }
    assert defined == set(RECIPE_CLASSES)


def test_options_are_those_of_the_frozen_list():
    """A renamed or dropped option breaks people's recipes: run ``write_options.py`` only on purpose."""
    assert list(frozen_lines()) == FROZEN.read_text(encoding="utf-8").splitlines()


def test_the_guides_tables_are_made_of_the_recipes():
    text = GUIDE.read_text(encoding="utf-8")
    assert guide_text(text) == text, "run tests/training/write_options.py"
    for command, (recipe_class, _, _) in COMMANDS.items():
        rows = "".join(found[3] for found in BLOCK.finditer(text) if shows(found[2], command))
        missing = [name for name, _ in dotted_fields(recipe_class) if f"| `{name}` |" not in rows]
        assert not missing, (command, missing)


def shows(wanted, command):
    """Whether a table of the guide is one of a command's; that of training is of both stages."""
    return wanted.split()[0] == command or (wanted == "train-dit training" and command == "train-vae")


def test_an_option_of_few_values_names_them():
    assert meaning(dict(dotted_fields(TrainVAERecipe))["data.frame_sampling"]).endswith(
        "(head, random, uniform, keyframe)"
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("training.lr", "training.learning_rate"),
        ("max_steps", "training.max_steps"),
        ("model.base_vea", "model.base_vae"),
    ],
)
def test_the_hint_names_what_was_probably_meant(given, meant):
    with pytest.raises(ConfigError, match=f"{given}: no such option; did you mean {meant}\\?"):
        load_recipe(TrainVAERecipe, "tiny_stage1", {given: "1"})


def test_tables_of_datasets_and_buckets_come_back_from_the_saved_recipe(tmp_path):
    """And an option may be given on the command line as JSON."""
    changes = {
        "data.base_path": None, "data.datasets": '[{"base_path": "a", "weight": 1}, {"base_path": "b", "weight": 2}]',
        "data.buckets.pixels": 100000, "data.buckets.frames": "5,9", "training.optimizer_options": '{"eps": 1e-6}',
    }  # fmt: skip
    recipe = load_recipe(TrainVAERecipe, overrides=VAE | changes)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.as_dict()))
    again = load_recipe(TrainVAERecipe, tmp_path / "recipe.json")
    assert again == recipe and again.data.shapes == recipe.data.shapes and len(again.data.shapes) > 4
    assert [(str(one.manifest), one.weight) for one in again.data.sources] == [
        ("a/metadata.csv", 1), ("b/metadata.csv", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data.datasets": '[{"base_path": "a"}]'}, "data: base_path has no effect with datasets"),
        ({"data.base_path": None, "data.datasets": "[{]"}, "data.datasets.*not valid JSON"),
        ({"data.base_path": None, "data.datasets": '[{"base": "a"}]'}, "data.datasets.0.base: no such option"),
        (
            {"data.base_path": None, "data.datasets": '[{"base_path": "a", "weight": 1}, {"base_path": "b"}]'},
            "datasets: give a weight in every table, or in none",
        ),
        ({"data.buckets.shapes": "17x272x272,49x250x448"}, "49x250x448: .* 49x240x448 or 49x256x448 would be valid"),
        ({"data.buckets.shapes": "17x272x272", "data.buckets.pixels": 10**6}, "shapes and pixels: give one"),
        ({"data.buckets.frames": "17"}, "frames has no effect without pixels"),
        ({"data.buckets.pixels": 10**6, "data.buckets.frames": "17,50"}, "49 or 53 would be valid"),
        ({"data.buckets.pixels": 1000}, "58 pixels a frame .* too few"),
        ({"data.buckets.side_multiple": 32}, "side_multiple has no effect without shapes or pixels"),
    ],
)
def test_impossible_datasets_and_buckets_are_refused(changes, message):
    given = {name: value for name, value in (VAE | changes).items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        load_recipe(TrainVAERecipe, overrides=given)
