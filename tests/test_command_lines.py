"""The three command lines of the Wan-Alpha training notes, as written there, on the tiny family that is shipped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from run_scripts import run
from safetensors.torch import load_file

from wan_alpha.data.synthetic import ShapeClip, draw_shape_clip
from wan_alpha.media.write import MatteWriter, OpaqueWriter
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.models.tiny import tiny_wan_folder
from wan_alpha.training.run_folder import read_metrics
from wan_alpha.weights.io import read_metadata

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPT = Path(__file__).with_name("run_scripts.py")
TINY = tiny_wan_folder()
BASE_VAE = TINY / "Wan2.1_VAE.pth"
SIZE = ["--height", "32", "--width", "32", "--num_frames", "5"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two pairs X_rgb.mp4 + X_alpha.mp4 of 5 frames of 32x32, and a metadata.csv with the column video."""
    folder = tmp_path_factory.mktemp("dataset")
    lines = ["video,prompt"]
    for number, color in ((1, "red"), (2, "blue")):
        clip = ShapeClip("circle", color, "large", "solid", "moving left")
        rgb, alpha = draw_shape_clip(clip, 5, 32, 32, torch.Generator().manual_seed(number))
        frames = (torch.cat([(rgb + 1) / 2, alpha]).permute(1, 2, 3, 0) * 255).round().byte().numpy()
        with OpaqueWriter(folder / f"{number:03d}_rgb.mp4", 16) as colours:
            colours.write(frames)
        with MatteWriter(folder / f"{number:03d}_alpha.mp4", 16) as mattes:
            mattes.write(frames)
        lines.append(f'{number:03d}_rgb.mp4,"{clip.caption}"')
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def road(tmp_path_factory, dataset):
    """The three commands, one after the other in one folder, each with what the one before it wrote."""
    folder = tmp_path_factory.mktemp("road")
    RGBAlphaVAE.from_pretrained(BASE_VAE, lora_rank=4).save_released(folder / "decoder.bin", decoders_only=True)
    data = ["--dataset_base_path", dataset, "--dataset_metadata_path", dataset / "metadata.csv"]
    vae = ["--base_vae_path", BASE_VAE, "--vae_lora_path", folder / "decoder.bin"]
    merge_block = ["--feature_merge_checkpoint", folder / "stage1" / "rgba_vae.safetensors"]
    models = [TINY / name for name in ("diffusion_pytorch_model.safetensors", "models_t5_umt5-xxl-enc-bf16.pth")]
    lines = {
        "train_feature_merge": [
            *data, *vae, *SIZE, "--learning_rate", "1e-4", "--num_epochs", "2", "--output_path", folder / "stage1",
        ],
        "train": [
            "--rgba_mode", *data, "--data_file_keys", "video", *SIZE, "--dataset_repeat", "2", "--model_paths",
            json.dumps(list(map(str, models))), *vae, *merge_block, "--use_dora", "--dora_rank", "32",
            "--learning_rate", "1e-4", "--num_epochs", "1", "--remove_prefix_in_ckpt", "pipe.dit.",
            "--output_path", folder / "stage2",
        ],
        "validate_feature_merge": [
            *vae, *merge_block, "--test_rgb_video", dataset / "001_rgb.mp4", "--test_alpha_video",
            dataset / "001_alpha.mp4", "--output_prefix", "validation",
        ],
    }  # fmt: skip
    done = run_launched({name: lines[name] for name in ("train_feature_merge", "train")}, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done["validate_feature_merge"] = run(EXAMPLES / "validate_feature_merge.py", lines["validate_feature_merge"])
    return folder, done


def run_launched(lines, folder):
    """Run scripts under accelerate, as the notes do; in one process, for each start of one takes seconds."""
    lines = {str(EXAMPLES / f"{name}.py"): list(map(str, arguments)) for name, arguments in lines.items()}
    (folder / "lines.json").write_text(json.dumps(lines))
    environment = os.environ | {"TORCH_HOME": str(folder / "no_vgg_weights")}
    command = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", str(SCRIPT), "lines.json"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return {Path(script).stem: json.loads((folder / f"{Path(script).stem}.json").read_text()) for script in lines}


def test_the_merge_block_trains(road):
    folder, done = road
    assert done["train_feature_merge"]["returncode"] == 0, done["train_feature_merge"]["stderr"]
    assert "training without the perceptual terms" in done["train_feature_merge"]["stderr"]
    assert [row["step"] for row in read_metrics(folder / "stage1")] == [1, 2, 3, 4]
    trained = RGBAlphaVAE.from_pretrained(BASE_VAE, folder / "stage1" / "rgba_vae.safetensors")
    fresh = RGBAlphaVAE.from_pretrained(BASE_VAE, decoder_lora=folder / "decoder.bin")
    assert not torch.equal(trained.merge.conv1.weight, fresh.merge.conv1.weight)
    assert all(torch.equal(a, b) for a, b in zip(trained.alpha.parameters(), fresh.alpha.parameters(), strict=True))


def test_the_diffusion_model_trains(road):
    folder, done = road
    assert done["train"]["returncode"] == 0, done["train"]["stderr"]
    assert [row["step"] for row in read_metrics(folder / "stage2")] == [1, 2, 3, 4]
    adapter = folder / "stage2" / "adapter.safetensors"
    metadata = read_metadata(adapter)
    assert (metadata["kind"], metadata["rank"]) == ("dora", "32")
    tensors = load_file(adapter)
    assert all(value.abs().max() > 0 for name, value in tensors.items() if "lora_B" in name)
    assert "blocks.0.self_attn.q.lora_magnitude_vector.default.weight" in tensors


def test_the_result_is_judged(road):
    folder, done = road
    # Decoders that were never trained miss the bars for alpha: 1, and nothing on stderr but progress.
    assert done["validate_feature_merge"]["returncode"] == 1, done["validate_feature_merge"]["stderr"]
    assert "Traceback" not in done["validate_feature_merge"]["stderr"]
    figures = json.loads((folder / "validation_metrics.json").read_text())
    assert figures["num_frames"] == 5 and figures["alpha_verdict"] == "poor"
    assert figures["rgb"]["mae"] < 60  # the base VAE's own reconstruction: the start from_vae is its encoder
    assert (folder / "validation_comparison.mp4").is_file()
    assert "alpha" in done["validate_feature_merge"]["stdout"]
