"""Textual inversion through stage 2: what learns, what is written, that it resumes, and that the others still train."""

import re

import pytest
import torch
from quantised import NAMES, PLAIN, use_plain_as
from stop_every_step import everything, train_stopping
from tiny_wan_files import write_dataset

from wan_alpha.data.buckets import Bucket
from wan_alpha.errors import ConfigError
from wan_alpha.models import block_offload
from wan_alpha.models.quantize import frozen_linears
from wan_alpha.models.textual_inversion import add_placeholders
from wan_alpha.models.wan import encode_prompts, load_tokenizer, load_wan
from wan_alpha.stages import placeholders, stage2_dit
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.placeholders import CaptionEncoder
from wan_alpha.stages.plan_dit import plan_dit
from wan_alpha.stages.plans import Assumptions, Target
from wan_alpha.stages.stage2_dit import WanAlphaTrainingModule, train_dit
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import TrainDiTRecipe
from wan_alpha.weights.adapter_card import read_adapter_card
from wan_alpha.weights.io import load_state_dict
from wan_alpha.weights.textual_inversion import read_placeholders

PLACEHOLDER = "<thing>"


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory, make_cache_recipe):
    """A cache whose captions name the placeholder."""
    clips = write_dataset(tmp_path_factory.mktemp("words") / "clips", subject=PLACEHOLDER)
    folder = tmp_path_factory.mktemp("words") / "cache"
    build_cache(make_cache_recipe(folder, **{"data.base_path": clips}))
    return folder


@pytest.fixture
def make_recipe(wan_folder, cache_folder, tmp_path):
    def make(**changes):
        overrides = {
            "output_dir": tmp_path / "run", "model.wan": str(wan_folder), "cache": cache_folder, "adapter.kind": "none",
            "textual_inversion.placeholder": PLACEHOLDER, "textual_inversion.initializer": "o",
            "textual_inversion.num_vectors": 2, "training.max_steps": 3, "training.learning_rate": 1e-2,
            "training.device": "cpu", "training.batch_size": 2,
        }  # fmt: skip
        given = {name: value for name, value in (overrides | changes).items() if value != "absent"}
        return load_recipe(TrainDiTRecipe, overrides=given)

    return make


def test_alone_it_trains_nothing_else_and_is_saved_alone(make_recipe, wan_folder, monkeypatch):
    trained = []
    original = WanAlphaTrainingModule.forward

    def forward(module, batch, *others):
        trained.extend(name for name, parameter in module.named_parameters() if parameter.requires_grad)
        return original(module, batch, *others)

    monkeypatch.setattr(WanAlphaTrainingModule, "forward", forward)
    recipe = make_recipe(validation_cache=make_recipe().cache)
    result = train_dit(recipe)
    assert set(trained) == {"captions.text_encoder.token_embedding.vectors.0"}
    assert result.validation[0]["loss"] != result.validation[-1]["loss"]
    written = {path.name for path in recipe.output_dir.glob("*.safetensors")}
    assert written == {"embeddings.safetensors"}
    assert len(list(recipe.output_dir.glob("checkpoints/*/embeddings.safetensors"))) == 1

    found = read_placeholders(recipe.output_dir / "embeddings.safetensors")
    pipe = load_wan(str(wan_folder), components=("text_encoder", "tokenizer"))
    start = pipe.text_encoder.token_embedding.weight[pipe.tokenizer.tokenizer.convert_tokens_to_ids("o")]
    assert found.vectors[PLACEHOLDER].shape == (2, 16)
    assert (found.vectors[PLACEHOLDER] != start).any()
    before = encode_prompts(pipe, [f"a red {PLACEHOLDER}"])
    add_placeholders(pipe, found)
    assert not torch.equal(encode_prompts(pipe, [f"a red {PLACEHOLDER}"]), before)


def test_with_an_adapter_both_learn(make_recipe):
    recipe = make_recipe(**{"adapter.kind": "lora", "adapter.rank": 4, "adapter.alpha": 4})
    train_dit(recipe)
    assert {path.name for path in recipe.output_dir.glob("*.safetensors")} == {
        "adapter.safetensors", "embeddings.safetensors",
    }  # fmt: skip
    adapter = load_state_dict(recipe.output_dir / "adapter.safetensors")
    assert all(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)
    card = read_adapter_card(recipe.output_dir / "adapter.safetensors")
    assert card.tokens == (recipe.textual_inversion.placeholder,)
    own = read_adapter_card(recipe.output_dir / "embeddings.safetensors")
    assert own.architecture == "umt5-16/textual-inversion" and own.tokens == card.tokens
    for name in ("base_sha256", "recipe", "recipe_sha256", "title", "date", "resolution"):
        assert getattr(own, name) == getattr(card, name) and getattr(own, name), name


def test_stopped_in_each_step_it_is_the_straight_run(make_recipe, tmp_path, monkeypatch):
    train_dit(make_recipe(output_dir=tmp_path / "straight"))
    train_stopping(train_dit, make_recipe(output_dir=tmp_path / "stopped"), WanAlphaTrainingModule, monkeypatch)
    straight, stopped = (everything(tmp_path / run) for run in ("straight", "stopped"))
    assert straight.keys() == stopped.keys() and "embeddings.safetensors" in straight
    for name in straight.keys() - {"state.json", "embeddings.safetensors"}:
        assert straight[name] == stopped[name], name
    vectors = [read_placeholders(tmp_path / run / "embeddings.safetensors").vectors for run in ("straight", "stopped")]
    assert torch.equal(vectors[0][PLACEHOLDER], vectors[1][PLACEHOLDER])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"textual_inversion.placeholder": "<other>"}, "none of the cache's 3 captions names it"),
        ({"textual_inversion.placeholder": "a"}, "the tokenizer knows 'a' already"),
        ({"textual_inversion.num_vectors": 60}, "60 vectors do not fit into a caption .* at most 47"),
        ({"textual_inversion.num_vectors": 45}, "is cut before the placeholder's last"),
        ({"textual_inversion.initializer": "absent"}, "textual_inversion.initializer: missing"),
        ({"textual_inversion.placeholder": "absent"}, "initializer has no effect without placeholder"),
        (
            {"textual_inversion.placeholder": "absent", "textual_inversion.initializer": "absent"},
            "num_vectors has no effect without placeholder",
        ),
        (
            {f"textual_inversion.{name}": "absent" for name in ("placeholder", "initializer", "num_vectors")},
            "adapter.kind = 'none' trains nothing",
        ),
        ({"adapter.rank": 4}, "adapter.rank has no effect with kind = 'none'"),
    ],
)
def test_what_is_refused_before_anything_is_loaded(make_recipe, monkeypatch, changes, message):
    monkeypatch.setattr(stage2_dit, "load_trained_dits", None)
    for is_dry in (False, True):
        with pytest.raises(ConfigError, match=message):
            train_dit(make_recipe(**changes, dry_run=is_dry))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"textual_inversion.placeholder": "a"}, "the tokenizer knows 'a' already"),
        ({"textual_inversion.placeholder": "<other>"}, "none of the cache's 3 captions names it"),
        ({"textual_inversion.placeholder": "<two words>", "cache": "none"}, "a word without spaces is needed"),
    ],
)
def test_a_plan_refuses_what_the_run_would_as_far_as_it_can_see(make_recipe, monkeypatch, changes, message):
    calls = []
    monkeypatch.setattr(placeholders, "load_tokenizer", lambda folder: calls.append(folder) or load_tokenizer(folder))
    target, assumptions = Target("cuda", "a card", None), Assumptions(True, Bucket(5, 32, 32))
    with pytest.raises(ConfigError, match=message):
        plan_dit(make_recipe(**changes), target, assumptions)
    assert len(calls) == ("<other>" not in changes.values())
    # The plans of an advice ask no more.
    plan_dit(make_recipe(), target, Assumptions(True, Bucket(5, 32, 32), steps=assumptions.steps))
    assert len(calls) < 2


def test_the_encoders_weights_may_wait_in_host_memory(make_recipe, monkeypatch):
    """The same run with the encoder's blocks computed twice and lent to the device one by one."""
    changes = {"training.gradient_checkpointing": True, "training.offload_blocks": True}
    plain, away = make_recipe(), make_recipe(output_dir=make_recipe().output_dir.with_name("away"), **changes)
    expected, lent = train_dit(plain), []
    original = block_offload.copy_to
    monkeypatch.setattr(
        block_offload, "copy_to", lambda weight, device: lent.append(weight) or original(weight, device)
    )
    result = train_dit(away)
    assert result.losses == pytest.approx(expected.losses, rel=1e-6)
    ours, theirs = (load_state_dict(recipe.output_dir / "embeddings.safetensors") for recipe in (away, plain))
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-7) for name in theirs)
    widths = {tuple(weight.shape) for weight in lent}
    encoder = load_wan(str(plain.model.wan), components=("text_encoder",)).text_encoder
    assert tuple(encoder.blocks[0].ffn.fc1.weight.shape) in widths


def test_the_plan_counts_the_encoder_where_it_waits(make_recipe, capsys):
    def frozen_bytes(**changes):
        train_dit(make_recipe(**changes, dry_run=True))
        return int(re.search(r"frozen weights .*\((\d+) bytes\)", capsys.readouterr().out)[1])

    pipe = load_wan(str(make_recipe().model.wan), components=("dit", "text_encoder"))
    away = 0  # all blocks but the one at work, of each model
    for model in (pipe.dit, pipe.text_encoder):
        linears = [model.get_submodule(name) for name in frozen_linears(model)]
        share = 1 - 1 / len(model.blocks)
        away += share * sum(linear.weight.nbytes for linear in linears)
    found = frozen_bytes(**{"training.gradient_checkpointing": True, "training.offload_blocks": True})
    assert frozen_bytes() - found == pytest.approx(away, abs=2)


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_may_be_quantised(make_recipe, monkeypatch, name):
    if name == PLAIN:
        name = "int8"
        use_plain_as(name, monkeypatch)
    changes = {"training.gradient_checkpointing": True, "model.quantization": name}
    losses = train_dit(make_recipe()).losses
    recipe = make_recipe(output_dir=make_recipe().output_dir.with_name("quantised"), **changes)
    result = train_dit(recipe)
    assert result.losses != losses and result.losses == pytest.approx(losses, rel=0.05)


def test_the_frozen_encoder_drops_nothing_while_training(make_recipe):
    recipe = make_recipe()
    captions = CaptionEncoder(str(recipe.model.wan), recipe.textual_inversion).train()
    assert any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in captions.modules())
    assert captions.training and torch.equal(captions([f"a {PLACEHOLDER}"]), captions.eval()([f"a {PLACEHOLDER}"]))


def test_previews_show_the_word_as_it_is_learned(make_recipe, reference_dir):
    recipe = make_recipe(**{
        "training.max_steps": 2, "training.preview_every": 1, "training.trackers": "", "training.learning_rate": 1.0,
        "preview.base_vae": reference_dir / "base_vae.safetensors", "preview.num_steps": 2,
        "preview.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin",
    })  # fmt: skip
    train_dit(recipe)
    first, second = ((recipe.output_dir / f"previews/step_0000000{step}/prompt_0.png").read_bytes() for step in (1, 2))
    assert first != second
