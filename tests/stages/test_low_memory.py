"""Stage 2 over a quantised base, and with its weights and activations in host memory: runs, resumes, files."""

import re

import pytest
import torch
from quantised import NAMES, PLAIN, use_plain_as
from safetensors.torch import load_file

from wan_alpha.errors import ConfigError
from wan_alpha.models.adapters import merge_adapter_into
from wan_alpha.models.quantize import frozen_linears
from wan_alpha.models.wan import load_wan, predict_velocity
from wan_alpha.stages import cache_latents, low_memory, stage2_dit
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.plan_dit import plan_dit
from wan_alpha.stages.plans import Assumptions, Target
from wan_alpha.stages.stage2_dit import train_dit
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import TrainDiTRecipe
from wan_alpha.weights.io import read_metadata

OFFLOADED = {"training.offload_blocks": True, "training.offload_activations": True}
NUM_STEPS = 3


@pytest.fixture
def make_recipe(wan_folder, cache_folder, tmp_path):
    def make(name, **changes):
        overrides = {
            "output_dir": tmp_path / name, "model.wan": str(wan_folder), "cache": cache_folder, "adapter.rank": 4,
            "adapter.alpha": 8, "training.max_steps": NUM_STEPS, "training.learning_rate": 1e-2,
            "training.device": "cpu", "training.batch_size": 2, "training.gradient_checkpointing": True,
            "validation_cache": cache_folder, "training.validate_every": 2, "training.checkpoint_every": 1,
        }  # fmt: skip
        return load_recipe(TrainDiTRecipe, overrides=overrides | changes)

    return make


def adapter_of(recipe):
    return load_file(recipe.output_dir / "adapter.safetensors")


def test_a_run_with_weights_and_activations_away_is_the_same_run(make_recipe):
    plain, away, turned = make_recipe("plain"), make_recipe("away", **OFFLOADED), make_recipe("turned")
    expected, found = train_dit(plain), train_dit(away)
    assert found.losses == expected.losses and found.validation == expected.validation
    # Where weights wait is no part of what is computed: it may change in a resume.
    train_dit(make_recipe("turned", **{"training.max_steps": 2}))
    assert train_dit(make_recipe("turned", **OFFLOADED)).losses == expected.losses
    for recipe in (away, turned):
        assert all(torch.equal(value, adapter_of(plain)[name]) for name, value in adapter_of(recipe).items())


@pytest.mark.parametrize("name", NAMES)
def test_a_quantised_run_resumes_and_its_adapter_is_for_the_exact_base(make_recipe, monkeypatch, wan_folder, name):
    if name == PLAIN:
        name = "int8"
        use_plain_as(name, monkeypatch)
    quantised = {"model.quantization": name, **(OFFLOADED if name != "nf4" else {})}
    whole, exact = make_recipe("whole", **quantised), make_recipe("exact")
    result, plain = train_dit(whole), train_dit(exact)
    assert result.losses != plain.losses
    assert result.losses == pytest.approx(plain.losses, rel=0.05)

    train_dit(make_recipe("stopped", **quantised, **{"training.max_steps": 2}))
    stopped = make_recipe("stopped", **quantised)
    resumed = train_dit(stopped)
    assert resumed.resumed_from == 2 and resumed.losses == result.losses
    assert all(torch.equal(value, adapter_of(whole)[name]) for name, value in adapter_of(stopped).items())
    with pytest.raises(ConfigError, match="model.quantization"):
        train_dit(make_recipe("stopped"))

    paths = [recipe.output_dir / "adapter.safetensors" for recipe in (whole, exact)]
    assert read_metadata(paths[0])["base_sha256"] == read_metadata(paths[1])["base_sha256"]
    # What was learned over the quantised base does on the exact one, as generate merges it, what the exact run's does.
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(1, 16, 2, 4, 4, generator=generator), torch.tensor([600.0]), torch.randn(1, 48, 16)
    moved = []
    with torch.no_grad():
        before = predict_velocity(load_wan(str(wan_folder), components=("dit",)).dit, *inputs)
        for path in paths:
            dit = load_wan(str(wan_folder), components=("dit",)).dit
            merge_adapter_into(dit, path)
            moved.append(predict_velocity(dit, *inputs) - before)
    assert moved[1].norm() > 0.01 * before.norm()
    assert (moved[0] - moved[1]).norm() < 0.25 * moved[1].norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"training.offload_blocks": True}, "training.offload_blocks: FSDP2"),
     ({"model.quantization": "int8"}, "model.quantization = 'int8': FSDP2"),
     ({"model.expert": "both"}, "model.expert = both: .* with FSDP2 train one expert"),
     ({"textual_inversion.placeholder": "<x>", "textual_inversion.initializer": "o"}, "text encoder is not sharded"),
     ({"training.optimizer": "adafactor"}, "'adafactor': with the weights in shards")],
)  # fmt: skip
def test_shards_are_refused_before_anything_is_loaded(make_recipe, monkeypatch, options, message):
    for variable, text in {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setattr(stage2_dit, "open_data", None)
    recipe = make_recipe("run", **options)
    for is_dry in (False, True):
        with pytest.raises(ConfigError, match=message):
            train_dit(recipe.model_copy(update={"dry_run": is_dry}))
    with pytest.raises(ConfigError, match=message):
        plan_dit(recipe, Target("cuda", "a card", None, 2, shards=2), Assumptions())


def test_a_missing_package_is_named_before_anything_is_loaded(make_recipe, monkeypatch):
    from diffsynth.core.quant.backends import torchao

    monkeypatch.setattr(torchao, "TORCHAO_AVAILABLE", False)
    monkeypatch.setattr(stage2_dit, "open_data", None)
    with pytest.raises(ConfigError, match="model.quantization = 'fp8' .*pip install \"torchao"):
        train_dit(make_recipe("run", **{"model.quantization": "fp8"}))


def test_both_experts_are_quantised_and_put_away(make_recipe, monkeypatch, wan_folder):
    use_plain_as("int8", monkeypatch)
    recipe = make_recipe("run", **{"model.quantization": "int8", **OFFLOADED})

    class Experts(torch.nn.Module):
        captions = None

        def __init__(self):
            super().__init__()
            self.dit, self.dit2 = (load_wan(str(wan_folder), components=("dit",)).dit for _ in range(2))

        def experts(self):
            return [("high_noise", self.dit), ("low_noise", self.dit2)]

    module = Experts().requires_grad_(False)
    low_memory.save_memory(module, recipe, torch.device("cpu"))
    for dit in (module.dit, module.dit2):
        layer = dit.blocks[1].ffn[0]
        assert type(layer).__name__ == "RoundedLinear" and layer.weight.numel() == 0
    # Not sent from process to process, which tensors of torchao cannot be: each has read them.
    left_out = module._ddp_params_and_buffers_to_ignore
    assert len(left_out) == 2 * 20 and {"dit.blocks.0.ffn.2.weight", "dit2.blocks.1.cross_attn.o.weight"} <= {*left_out}


def test_the_dry_run_counts_what_is_left_on_the_device(make_recipe, monkeypatch, wan_folder, capsys):
    use_plain_as("nf4", monkeypatch)
    use_plain_as("int8", monkeypatch)

    def predicted(**changes):
        train_dit(make_recipe("run", **changes, dry_run=True))
        return int(re.search(r"frozen weights .*\((\d+) bytes\)", capsys.readouterr().out)[1])

    dit = load_wan(str(wan_folder), components=("dit",)).dit.requires_grad_(False)
    num_weights = sum(dit.get_submodule(name).weight.numel() for name in frozen_linears(dit))
    kept = {
        "plain": ({}, 4 * num_weights),
        "away": (OFFLOADED, 4 * num_weights / 2),  # one of two blocks at a time
        "nf4": ({"model.quantization": "nf4"}, 0.51587 * num_weights),
        "int8 away": ({"model.quantization": "int8", **OFFLOADED}, num_weights / 2 + 4 * num_weights / 2),
    }
    plain = predicted()  # with what a DoRA keeps of them
    for name, (changes, weights) in kept.items():
        saved = 4 * num_weights - weights
        assert plain - predicted(**changes) == pytest.approx(saved, abs=2), name


def test_the_text_encoder_is_gone_before_the_vae_comes(tmp_path, make_cache_recipe, monkeypatch):
    """Both on a device at once would take the eleven gigabytes that the cache is there to save."""
    import weakref

    from wan_alpha.models import wan

    load, encode, seen = wan.load_wan, cache_latents.encode_items, []

    def watched(*args, **options):
        pipe = load(*args, **options)
        seen.extend(weakref.ref(parameter) for parameter in pipe.text_encoder.parameters())
        return pipe

    def check(*args, **options):
        assert seen and all(parameter() is None for parameter in seen)
        seen.append("checked")
        return encode(*args, **options)

    monkeypatch.setattr(wan, "load_wan", watched)
    monkeypatch.setattr(cache_latents, "encode_items", check)
    build_cache(make_cache_recipe(tmp_path / "cache"))
    assert seen[-1] == "checked"
