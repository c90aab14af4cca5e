"""A model named by its id: what each command downloads of it, and that a plan or a dry run downloads nothing."""

from functools import partial

import pytest
from test_dry_run import given  # noqa: F401 (a fixture)

from wan_alpha.cli.main import main
from wan_alpha.inference.generate import generate
from wan_alpha.models import load
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.stage2_dit import train_dit
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import GenerateRecipe, TrainDiTRecipe

MODEL = "Wan-AI/Wan2.1-T2V-1.3B"
DIT, TEXT = "diffusion_pytorch_model*.safetensors", "models_t5_umt5-xxl-enc-bf16.pth"
TOKENIZER = "google/umt5-xxl/"


@pytest.fixture
def asked(tmp_path, wan_folder, monkeypatch):
    """What is asked of the downloader; a tiny model lies where it would put its files."""
    found = set()
    (tmp_path / "models" / "Wan-AI").mkdir(parents=True)
    (tmp_path / "models" / MODEL).symlink_to(wan_folder)
    monkeypatch.setenv("DIFFSYNTH_MODEL_BASE_PATH", str(tmp_path / "models"))
    monkeypatch.setattr("diffsynth.core.ModelConfig.download", lambda self: found.add(self.origin_file_pattern))
    return found


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Nothing is downloaded yet, and whoever asks for it has failed. Models have one block, to be planned fast."""
    monkeypatch.setenv("DIFFSYNTH_MODEL_BASE_PATH", str(tmp_path / "models"))
    for name in ("download", "download_if_necessary"):
        monkeypatch.setattr(f"diffsynth.core.ModelConfig.{name}", lambda self: pytest.fail("asked for a download"))
    for name, more in (("shape_known_dit", {"text_dim": 16}), ("shape_known_text_encoder", {})):  # of the tiny cache
        shape = partial(lambda shape, more, sizes: shape(sizes | {"num_layers": 1}, **more), getattr(load, name), more)
        monkeypatch.setattr(load, name, shape)


def test_a_run_downloads_what_it_uses(asked, given, tmp_path, make_cache_recipe, cache_folder, reference_dir):  # noqa: F811
    options = {**given["train-dit"], "model.wan": MODEL, "training.max_steps": 1, "output_dir": tmp_path / "run"}
    train_dit(load_recipe(TrainDiTRecipe, overrides=options))
    assert asked == {DIT}
    asked.clear()
    word = {"textual_inversion.placeholder": "circle,", "textual_inversion.initializer": "o"}
    train_dit(load_recipe(TrainDiTRecipe, overrides={**options, **word, "output_dir": tmp_path / "word"}))
    assert asked == {DIT, TEXT, TOKENIZER}
    asked.clear()
    build_cache(make_cache_recipe(tmp_path / "cache", **{"model.wan": MODEL}))
    assert asked == {TEXT, TOKENIZER}
    asked.clear()
    weights = {name: given["cache"][name] for name in ("model.base_vae", "model.rgba_weights")}
    sizes = {"num_frames": 5, "height": 32, "width": 32, "num_steps": 1, "guidance": 1, "formats": "png"}
    options = {**weights, **sizes, "model.wan": MODEL, "prompt": "o", "device": "cpu", "output_dir": tmp_path / "clip"}
    generate(load_recipe(GenerateRecipe, overrides=options), progress=False)
    assert asked == {DIT, TEXT, TOKENIZER}


@pytest.mark.parametrize("source", [MODEL, f"{MODEL}:{DIT},{MODEL}:{TEXT}"])
@pytest.mark.parametrize("command", ["train-dit", "cache"])
def test_a_dry_run_takes_a_known_models_sizes(offline, given, tmp_path, capsys, command, source):  # noqa: F811
    options = {**given[command], "model.wan": source, "output_dir": tmp_path / "out"}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    assert main([command, *arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    part = "text encoder has the sizes of Wan2.1-T2V-1.3B's" if command == "cache" else "DiT has the sizes of Wan2.1"
    assert "assumed:" in printed and f"{source} is not there: the {part}" in printed


def test_a_dry_run_of_an_unknown_models_files_says_what_to_do(offline, given, tmp_path, capsys):  # noqa: F811
    options = {**given["train-dit"], "model.wan": f"some/model:{DIT}", "output_dir": tmp_path / "out"}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    assert main(["train-dit", *arguments, "--dry-run"]) == 2
    assert "a plan downloads nothing, and is not under" in capsys.readouterr().err


def test_a_plan_downloads_nothing(offline, capsys):
    assert (
        main(["plan", "--config", "stage2_dora_1_3b", "--model.wan", MODEL, "--bucket", "5x32x32", "--device", "cpu"])
        == 0
    )
    assert f"{MODEL} is not there: the DiT has the sizes of Wan2.1-T2V-1.3B" in capsys.readouterr().out
