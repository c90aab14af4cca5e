"""Stage 1 on the reference VAE (width 8) and synthetic clips."""

import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from stop_every_step import everything, train_stopping

from wan_alpha.alpha.composite import BACKGROUND_COLORS, hard_render
from wan_alpha.data.dataset import collate
from wan_alpha.data.operators import HardRenderRGBA, LoadRGBAVideoPair, SoftRenderRGBA
from wan_alpha.errors import ConfigError
from wan_alpha.losses.reconstruction import RGBAReconstructionLoss
from wan_alpha.metrics.mae import mae_255
from wan_alpha.metrics.psnr import psnr
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.stages.stage1_vae import (
    ReconstructionModule,
    build_loss,
    build_vae,
    frozen_weights,
    random_backgrounds,
    reconstruction_figures,
    train_vae,
    training_clips,
)
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import LossSettings, TrainVAERecipe
from wan_alpha.training.run_folder import read_metrics
from wan_alpha.weights.io import load_state_dict, save_pickle, save_safetensors

NUM_STOPPED_STEPS = 4
VALIDATION_FIGURES = {"rgb_psnr", "rgb_mae", "rgb_ssim", "alpha_psnr", "alpha_mae", "alpha_ssim"}


@pytest.fixture
def make_recipe(reference_dir, dataset_folder):
    """make_recipe(folder, **{"dotted.name": value}) -> TrainVAERecipe of clips of 5x32x32."""

    def make(folder, **changes):
        overrides = {
            "output_dir": folder, "model.base_vae": reference_dir / "base_vae.safetensors",
            "data.base_path": dataset_folder, "data.num_frames": 5, "data.height": 32, "data.width": 32,
            "loss.perceptual": "none", "training.max_steps": 3, "training.learning_rate": 1e-3,
            "training.device": "cpu",
        }  # fmt: skip
        if "model.decoder_lora" not in changes and changes.get("model.mode") != "merge":
            overrides["model.lora_rank"] = 4
        return load_recipe(TrainVAERecipe, overrides=overrides | changes)

    return make


@pytest.fixture
def merge_changes(reference_dir):
    return {"model.mode": "merge", "model.decoder_lora": reference_dir / "decoder.bin"}


def test_forward_is_render_encode_decode_loss(tmp_path, make_recipe, merge_changes):
    recipe = make_recipe(tmp_path, **merge_changes)
    vae = build_vae(recipe.model, seed=0)
    clips = training_clips(recipe.data, recipe.seed)
    batch = collate([clips[0], clips[1]])
    terms = ReconstructionModule(vae, build_loss(recipe.loss))(batch)

    renders = HardRenderRGBA() >> SoftRenderRGBA()
    samples = [renders(clips[0]), renders(clips[1])]
    hard, hard_background, soft_background = (
        torch.stack([sample[name] for sample in samples]) for name in ("hard", "hard_background", "soft_background")
    )
    prediction = vae.decode_raw(vae.encode_raw(hard, batch["alpha"]))
    loss = RGBAReconstructionLoss(perceptual="none")
    expected = loss(
        *prediction, batch["rgb"], batch["alpha"], hard_background=hard_background, soft_background=soft_background
    )
    assert set(terms) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


@pytest.mark.parametrize("mode, prefixes", [("merge", {"merge"}), ("full", {"merge", "foreground", "alpha"})])
def test_gradients_reach_what_the_mode_trains_and_nothing_else(tmp_path, make_recipe, merge_changes, mode, prefixes):
    recipe = make_recipe(tmp_path, **(merge_changes if mode == "merge" else {}))
    module = ReconstructionModule(build_vae(recipe.model, seed=0), build_loss(recipe.loss))
    clips = training_clips(recipe.data, recipe.seed)
    module(collate([clips[0], clips[1]]))["total"].backward()
    with_gradient = {name.split(".")[1] for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert with_gradient == prefixes


def test_backgrounds_follow_from_each_samples_seed():
    seeds = torch.arange(400)
    drawn = random_backgrounds(seeds, "hard")
    assert torch.equal(drawn[7:9], random_backgrounds(torch.tensor([7, 8]), "hard"))
    assert not torch.equal(drawn, random_backgrounds(seeds, "soft"))
    counts = [(drawn == color).all(dim=1).sum().item() for color in BACKGROUND_COLORS]
    assert sum(counts) == 400 and min(counts) > 25


def test_merge_training_leaves_the_decoders(tmp_path, make_recipe, merge_changes, reference_dir):
    train_vae(make_recipe(tmp_path, **merge_changes))
    written, released = (load_state_dict(path) for path in (tmp_path / "decoder.bin", reference_dir / "decoder.bin"))
    assert set(written) == set(released)
    assert all(torch.equal(written[name], released[name]) for name in released)
    trained = load_state_dict(tmp_path / "rgba_vae.safetensors")
    start = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", None, reference_dir / "decoder.bin")
    changed = [name for name, value in start.trained_state().items() if not torch.equal(value, trained[name])]
    assert changed and all(name.startswith("merge.") for name in changed)


def test_full_training_learns_alpha(tmp_path, make_recipe, dataset_folder):
    changes = {"data.num_frames": 1, "data.height": 16, "data.width": 16, "training.max_steps": 40}
    changes |= {"training.learning_rate": 1e-2, "data.validation_metadata": dataset_folder / "metadata.csv"}
    before, after = train_vae(make_recipe(tmp_path, **changes)).validation
    assert after["alpha_mae"] < 0.8 * before["alpha_mae"]


def test_full_training_writes_one_vae_in_three_files(tmp_path, make_recipe, reference_dir, dataset_folder):
    changes = {"data.validation_metadata": dataset_folder / "metadata.csv", "data.validation_clips": 2}
    result = train_vae(make_recipe(tmp_path, **changes))
    assert [row["step"] for row in result.validation] == [0, 3]
    assert all(set(row) == VALIDATION_FIGURES | {"step"} for row in result.validation)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"loss", "l1_alpha", "edge_rgb_hard", "learning_rate"} <= set(rows[0])

    base = reference_dir / "base_vae.safetensors"
    own = RGBAlphaVAE.from_pretrained(base, tmp_path / "rgba_vae.safetensors")
    released = RGBAlphaVAE.from_pretrained(base, tmp_path / "rgba_vae_released.bin")
    untrained = RGBAlphaVAE.from_pretrained(base, lora_rank=4)
    decoders = RGBAlphaVAE.from_pretrained(base, None, tmp_path / "decoder.bin")
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = own.decode_raw(latents)
        for vae in (released, decoders):
            for stream, value in zip(vae.decode_raw(latents), expected, strict=True):
                torch.testing.assert_close(stream, value, rtol=1e-4, atol=1e-5)
        assert (untrained.decode_raw(latents)[1] - expected[1]).abs().max() > 1e-3
    assert own.fingerprint() == released.fingerprint()


def test_a_resumed_run_is_the_straight_run(tmp_path, make_recipe):
    augmented = {"data.augment": True, "training.max_steps": 4, "training.batch_size": 2}
    train_vae(make_recipe(tmp_path / "straight", **augmented))
    train_vae(make_recipe(tmp_path / "stopped", **augmented | {"training.max_steps": 2}))
    result = train_vae(make_recipe(tmp_path / "stopped", **augmented))
    assert result.resumed_from == 2
    assert read_metrics(tmp_path / "straight") == read_metrics(tmp_path / "stopped")
    straight, resumed = (load_state_dict(tmp_path / run / "rgba_vae.safetensors") for run in ("straight", "stopped"))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize("option", ["model.base_vae", "model.decoder_lora"])
def test_other_frozen_weights_under_the_same_name_are_no_continuation(
    tmp_path, make_recipe, merge_changes, reference_dir, option
):
    """What the merge block is trained against is in no checkpoint."""
    sources = {"model.base_vae": reference_dir / "base_vae.safetensors", **merge_changes}
    path = tmp_path / sources[option].name
    shutil.copy(sources[option], path)
    changes = merge_changes | {option: path, "training.max_steps": 1}
    train_vae(make_recipe(tmp_path / "run", **changes))
    others = {name: value + 0.1 for name, value in load_state_dict(path).items()}
    (save_pickle if path.suffix == ".bin" else save_safetensors)(others, path)
    with pytest.raises(ConfigError, match=rf"other base weights:\n  {option}, {path}: sha256 \w+ there, \w+ here\n"):
        train_vae(make_recipe(tmp_path / "run", **changes | {"training.max_steps": 2}))
    shutil.copy(sources[option], path)
    assert train_vae(make_recipe(tmp_path / "run", **changes | {"training.max_steps": 2})).resumed_from == 1


def test_another_perceptual_network_has_another_hash(tmp_path, make_recipe):
    recipe = make_recipe(tmp_path, **{"loss.perceptual": "vgg16", "loss.perceptual_weights": "vgg.pth"})
    module = SimpleNamespace(loss=SimpleNamespace(perceptual=torch.nn.Linear(2, 2)))
    before, again = (frozen_weights(module, recipe, "0") for _ in range(2))
    module.loss.perceptual.weight.data += 1
    now = frozen_weights(module, recipe, "0")
    assert before == again and now["model.base_vae"] == before["model.base_vae"]
    assert now["loss.perceptual_weights"]["file"] == "vgg.pth"
    assert now["loss.perceptual_weights"]["sha256"] != before["loss.perceptual_weights"]["sha256"]


def test_stopped_after_every_step_it_is_the_same_run(tmp_path, make_recipe, monkeypatch):
    changes = {"data.num_frames": 1, "data.height": 16, "data.width": 16, "data.augment": True}
    changes |= {"training.max_steps": NUM_STOPPED_STEPS, "training.gradient_accumulation": 2, "training.ema_decay": 0.9}
    whole = train_vae(make_recipe(tmp_path / "whole", **changes))
    stopped = make_recipe(tmp_path / "stopped", **changes)
    result = train_stopping(train_vae, stopped, ReconstructionModule, monkeypatch)
    assert (result.resumed_from, result.losses) == (NUM_STOPPED_STEPS - 1, whole.losses)
    ours, theirs = (everything(tmp_path / name) for name in ("stopped", "whole"))
    # The trained VAE's metadata holds its recipe, and that its output folder: of it, the tensors are compared.
    names = {"metrics.jsonl", "model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"}
    assert set(ours) == set(theirs) == names | {"rgba_vae.safetensors"}
    assert all(ours[name] == theirs[name] for name in names)
    weights = [load_state_dict(tmp_path / run / "rgba_vae.safetensors") for run in ("whole", "stopped")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_each_checkpoint_has_a_vae_that_loads(tmp_path, make_recipe, reference_dir):
    changes = {"data.num_frames": 1, "training.checkpoint_every": 1, "training.max_steps": 2}
    train_vae(make_recipe(tmp_path, **changes))
    base = reference_dir / "base_vae.safetensors"
    files = [*sorted((tmp_path / "checkpoints").glob("*/rgba_vae.safetensors")), tmp_path / "rgba_vae.safetensors"]
    prints = [RGBAlphaVAE.from_pretrained(base, file).fingerprint() for file in files]
    assert len(files) == 3 and prints[0] != prints[1] == prints[2]


def test_lost_weights_of_a_finished_run_are_written_again(tmp_path, make_recipe):
    recipe = make_recipe(tmp_path, **{"training.max_steps": 1})
    train_vae(recipe)
    weights = load_state_dict(tmp_path / "rgba_vae.safetensors")
    weights = {name: value.clone() for name, value in weights.items()}
    (tmp_path / "rgba_vae.safetensors").unlink()
    assert train_vae(recipe).was_finished
    again = load_state_dict(tmp_path / "rgba_vae.safetensors")
    assert again.keys() == weights.keys() and all(torch.equal(again[name], weights[name]) for name in weights)


def test_given_weights_say_what_new_parts_would_be(tmp_path, make_recipe, reference_dir):
    """Of what a recipe leaves open: the identity start, and rank 128; else what the file holds."""
    assert build_vae(make_recipe(tmp_path, **{"model.lora_rank": None}).model, seed=0).foreground.rank == 128
    given = {"model.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin", "model.lora_rank": None}
    vae = build_vae(make_recipe(tmp_path, **given).model, seed=0)
    direct = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", given["model.rgba_weights"])
    assert vae.foreground.rank == direct.foreground.rank != 128 and vae.fingerprint() == direct.fingerprint()


def test_bf16_computes_the_same_and_trains_float32(tmp_path, make_recipe):
    small = {"data.num_frames": 1, "training.max_steps": 2}
    full, half = (
        train_vae(make_recipe(tmp_path / name, **small | {"training.precision": name})) for name in ("fp32", "bf16")
    )
    assert half.losses == pytest.approx(full.losses, rel=0.05) and half.losses != full.losses
    assert all(
        value.dtype == torch.float32 for value in load_state_dict(tmp_path / "bf16" / "rgba_vae.safetensors").values()
    )


def test_activations_computed_twice_change_nothing(tmp_path, make_recipe, reference_dir):
    changes = {
        "loss.perceptual": "vgg16", "loss.perceptual_weights": reference_dir / "vgg16_relu2_2_random.safetensors",
        "training.max_steps": 2, "data.height": 16, "data.width": 16,
    }  # fmt: skip
    plain = train_vae(make_recipe(tmp_path / "plain", **changes))
    twice = train_vae(make_recipe(tmp_path / "twice", **changes, **{"training.gradient_checkpointing": True}))
    assert twice.losses == pytest.approx(plain.losses, rel=1e-5)
    ours, theirs = (load_state_dict(tmp_path / name / "rgba_vae.safetensors") for name in ("twice", "plain"))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).norm() <= 1e-2 * theirs[name].norm() + 1e-4 for name in theirs)


def test_chunks_and_activations_computed_twice_are_refused(tmp_path, make_recipe):
    with pytest.raises(ConfigError, match="model.chunk_size = 1 has no effect .* give one of the two"):
        make_recipe(tmp_path, **{"model.chunk_size": 1, "training.gradient_checkpointing": True})


def test_merge_mode_needs_trained_decoders(tmp_path, make_recipe):
    with pytest.raises(ConfigError, match=r"model\.decoder_lora"):
        make_recipe(tmp_path, **{"model.mode": "merge"})


def test_figures_are_those_of_the_reconstruction(tmp_path, make_recipe, merge_changes, dataset_folder):
    recipe = make_recipe(tmp_path, **merge_changes)
    vae = build_vae(recipe.model, seed=0)
    sample = LoadRGBAVideoPair(num_frames=5, height=32, width=32)(dataset_folder / "000_rgb.mkv")
    rgb, alpha = sample["rgb"][None], sample["alpha"][None]
    with torch.no_grad():
        figures = reconstruction_figures(vae, [(rgb, alpha)])
        pred_rgb, pred_alpha = vae.decode(vae.encode(hard_render(rgb, alpha, (-1, -1, -1)), alpha))
    assert set(figures) == VALIDATION_FIGURES
    assert figures["alpha_mae"] == pytest.approx(mae_255(pred_alpha, alpha))
    assert figures["alpha_psnr"] == pytest.approx(psnr(pred_alpha, alpha))
    # Over grey with the true alpha, model space [-1, 1] has grey at 0.
    assert figures["rgb_mae"] == pytest.approx(127.5 * ((pred_rgb - rgb) * alpha).abs().mean().item(), rel=1e-5)
    assert math.isfinite(figures["rgb_ssim"])


def test_loss_settings_become_weights():
    loss = build_loss(LossSettings(perceptual="none", l1_weight=2, edge_weight=0.5, temporal_weight=0.25))
    assert loss.weights["l1_alpha"] == 2 and loss.weights["edge_rgb_soft"] == 0.5
    assert loss.weights["temporal_alpha"] == 0.25 and "perceptual_alpha" not in loss.weights


def test_missing_vgg_weights_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"vgg16.*nowhere\.pth"):
        build_loss(LossSettings(perceptual_weights=tmp_path / "nowhere.pth"))


@torch.no_grad()
def test_figures_are_means_over_clips_each_on_its_own_colour(tmp_path, make_recipe, merge_changes, dataset_folder):
    vae = build_vae(make_recipe(tmp_path, **merge_changes).model, seed=0)
    sample = LoadRGBAVideoPair(num_frames=5, height=32, width=32)(dataset_folder / "000_rgb.mkv")
    rgb, alpha = sample["rgb"][None], sample["alpha"][None]
    clips = [(rgb, alpha), (rgb.flip(-1), 0.5 * alpha.flip(-1))]
    expected = []
    for index, (clip_rgb, clip_alpha) in enumerate(clips):
        _, pred_alpha = vae.decode(vae.encode(hard_render(clip_rgb, clip_alpha, BACKGROUND_COLORS[index]), clip_alpha))
        expected.append(psnr(pred_alpha, clip_alpha))
    assert expected[0] != pytest.approx(expected[1], abs=0.1)
    assert reconstruction_figures(vae, clips)["alpha_psnr"] == pytest.approx(sum(expected) / 2)
