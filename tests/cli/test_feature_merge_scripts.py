"""The two scripts with the flags of the training notes, one after the other on the reference VAE."""

import importlib.util
from pathlib import Path

import pytest
import torch

from wan_alpha.data.synthetic import ShapeClip, draw_shape_clip
from wan_alpha.media.write import LosslessWriter
from wan_alpha.training.run_folder import read_metrics

EXAMPLES = Path(__file__).parents[2] / "examples"


def script(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    clip = ShapeClip("ring", "blue", "large", "translucent", "growing")
    rgb, alpha = draw_shape_clip(clip, 5, 32, 32, torch.Generator().manual_seed(0))
    frames = (torch.cat([(rgb + 1) / 2, alpha]).permute(1, 2, 3, 0) * 255).round().byte().numpy()
    for name, stream in (("001_rgb.mkv", "rgb"), ("001_alpha.mkv", "matte")):
        with LosslessWriter(folder / name, 16, stream) as writer:
            writer.write(frames)
    (folder / "metadata.csv").write_text("video_fgr,video_pha,prompt\n001_rgb.mkv,001_alpha.mkv,a ring\n")
    return folder


def test_train_then_validate(tmp_path, dataset, reference_dir, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no_weights_here"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    weights = [
        "--base_vae_path",
        str(reference_dir / "base_vae.safetensors"),
        "--vae_lora_path",
        str(reference_dir / "decoder.bin"),
    ]
    code = script("train_feature_merge").main([
        "--dataset_base_path", str(dataset), "--dataset_metadata_path", str(dataset / "metadata.csv"), *weights,
        "--height", "32", "--width", "32", "--num_frames", "5", "--learning_rate", "1e-4", "--num_epochs", "3",
        "--output_path", str(tmp_path / "out"),
    ])  # fmt: skip
    assert code == 0
    assert "training without the perceptual terms" in capsys.readouterr().err
    assert [row["step"] for row in read_metrics(tmp_path / "out")] == [1, 2, 3]

    code = script("validate_feature_merge").main([
        *weights, "--feature_merge_checkpoint", str(tmp_path / "out" / "rgba_vae.safetensors"),
        "--test_rgb_video", str(dataset / "001_rgb.mkv"), "--test_alpha_video", str(dataset / "001_alpha.mkv"),
        "--output_prefix", str(tmp_path / "checks" / "validation"), "--device", "cpu",
    ])  # fmt: skip
    assert code == 1  # random weights: the bars are missed
    assert (tmp_path / "checks" / "validation_comparison.mp4").is_file()
    assert "MAE" in capsys.readouterr().out


def test_vgg_weights_are_used_where_they_are(tmp_path, dataset, reference_dir):
    code = script("train_feature_merge").main([
        "--dataset_base_path", str(dataset), "--base_vae_path", str(reference_dir / "base_vae.safetensors"),
        "--vae_lora_path", str(reference_dir / "decoder.bin"), "--height", "16", "--width", "16", "--num_frames", "1",
        "--perceptual_weights", str(reference_dir / "vgg16_relu2_2_random.safetensors"),
        "--num_epochs", "1", "--output_path", str(tmp_path / "out"),
    ])  # fmt: skip
    assert code == 0 and "perceptual_alpha" in read_metrics(tmp_path / "out")[0]


def test_errors_are_one_message(tmp_path, dataset, capsys):
    arguments = ["--dataset_base_path", str(dataset), "--vae_lora_path", "d.bin", "--output_path", str(tmp_path)]
    code = script("train_feature_merge").main([*arguments, "--base_vae_path", "nowhere.pth", "--perceptual", "none"])
    assert code == 2 and "nowhere.pth: no such weight file" in capsys.readouterr().err
