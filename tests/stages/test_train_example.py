"""The second of the three command lines: caching and stage 2 in one, as a user of diffsynth's examples writes it."""

import importlib.util
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from wan_alpha.errors import ConfigError
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.weights.io import read_metadata

SCRIPT = Path(__file__).parents[2] / "examples" / "train.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("examples_train", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arguments(wan_folder, dataset_folder, reference_dir, tmp_path):
    """The user's command line, sizes and paths aside."""
    vae = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin")
    vae.save(tmp_path / "FM.safetensors")
    names = ("diffusion_pytorch_model.safetensors", "models_t5_umt5-xxl-enc-bf16.pth")
    models = [str(wan_folder / name) for name in names]
    return {
        "--rgba_mode": None, "--dataset_base_path": dataset_folder,
        "--dataset_metadata_path": dataset_folder / "metadata.csv", "--data_file_keys": "video", "--height": 32,
        "--width": 32, "--num_frames": 5, "--dataset_repeat": 2, "--model_paths": json.dumps(models),
        "--base_vae_path": reference_dir / "base_vae.safetensors", "--vae_lora_path": reference_dir / "decoder.bin",
        "--feature_merge_checkpoint": tmp_path / "FM.safetensors", "--use_dora": None, "--dora_rank": 4,
        "--learning_rate": 1e-4, "--num_epochs": 2, "--remove_prefix_in_ckpt": "pipe.dit.",
        "--output_path": tmp_path / "OUT",
    }  # fmt: skip


def command_line(arguments):
    return [str(part) for flag, value in arguments.items() for part in ([flag] if value is None else [flag, value])]


def test_the_command_line_caches_and_trains(example, arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert example.main(command_line(arguments)) == 0
    output = tmp_path / "OUT"
    steps = [json.loads(line)["step"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 3 * 2 * 2 + 1))
    assert len(list((output / "cache" / "items").iterdir())) == 3
    assert read_metadata(output / "adapter.safetensors")["kind"] == "dora"
    assert "blocks.1.ffn.2.lora_magnitude_vector.default.weight" in load_file(output / "adapter.safetensors")


def test_the_flags_become_recipes(example, arguments):
    cache, train = example.recipes_from(example.parse_arguments(command_line(arguments)))
    assert (cache.data.num_frames, cache.data.height, cache.output_dir) == (5, 32, train.cache)
    assert (train.adapter.kind, train.adapter.rank, train.adapter.alpha) == ("dora", 4, 4.0)
    assert (train.repeat, train.training.num_epochs, train.training.learning_rate) == (2, 2, 1e-4)


def test_without_use_dora_it_is_a_lora_and_with_trainable_models_everything(example, arguments):
    del arguments["--use_dora"], arguments["--dora_rank"]
    _, train = example.recipes_from(example.parse_arguments(command_line(arguments | {"--lora_rank": 8})))
    assert (train.adapter.kind, train.adapter.rank) == ("lora", 8)
    _, train = example.recipes_from(example.parse_arguments(command_line(arguments | {"--trainable_models": "dit"})))
    assert train.adapter.kind == "full"


def test_a_tokenizer_elsewhere_joins_the_models(example, arguments, wan_folder):
    tokenizer = wan_folder / "google" / "umt5-xxl"
    cache, _ = example.recipes_from(example.parse_arguments(command_line(arguments | {"--tokenizer_path": tokenizer})))
    assert cache.model.wan[-1] == str(tokenizer)
    assert len(cache.model.wan) == 3


@pytest.mark.parametrize(
    ("removed", "added", "message"),
    [
        (["--rgba_mode"], {}, "diffsynth's own examples"),
        ([], {"--model_id_with_origin_paths": "a:b"}, "one of the two"),
        (["--model_paths"], {}, "one of the two"),
        ([], {"--data_file_keys": "image"}, "video_fgr"),
        ([], {"--remove_prefix_in_ckpt": "pipe."}, "pipe.dit."),
        (["--use_dora"], {}, "--dora_rank has no effect"),
        ([], {"--lora_rank": "4"}, "--lora_rank has no effect"),
        ([], {"--trainable_models": "dit"}, "every weight"),
        ([], {"--height": "33"}, "data.height"),
    ],
)
def test_what_does_not_go_together_is_refused(example, arguments, removed, added, message):
    changed = {flag: value for flag, value in (arguments | added).items() if flag not in removed}
    with pytest.raises(ConfigError, match=message):
        example.recipes_from(example.parse_arguments(command_line(changed)))


def test_a_refusal_is_one_line_and_exit_code_2(example, arguments, capsys):
    del arguments["--rgba_mode"]
    assert example.main(command_line(arguments)) == 2
    assert capsys.readouterr().err.startswith("train.py: give --rgba_mode")
