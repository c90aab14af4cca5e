"""What is no good is refused by every command that loads it: exit code 2, the file named, the way out, nothing run."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature_wan import write_wan_folder
from safetensors.torch import save_file
from wan_layouts import write_original

from wan_alpha.cli.main import main
from wan_alpha.media.write import LosslessWriter

sys.path.append(str(Path(__file__).parents[1] / "weights"))
from hostile_files import pickle_with_code, safetensors_bytes, tensor_entry, zip_bomb, zip_bytes  # noqa: E402


@pytest.fixture(scope="module")
def good(tmp_path_factory, reference_dir):
    """Command -> its options, all of them right as far as files go."""
    folder = tmp_path_factory.mktemp("good")
    wan = write_wan_folder(folder, reference_dir / "base_vae.safetensors")
    clip, frames = folder / "clip_rgb.mkv", np.full((5, 32, 32, 4), 128, np.uint8)
    for name, stream in (("clip_rgb.mkv", "rgb"), ("clip_alpha.mkv", "matte")):
        with LosslessWriter(folder / name, 16, stream) as writer:
            writer.write(frames)
    (folder / "metadata.csv").write_text("video,prompt\nclip_rgb.mkv,o\n")
    vae = {"model.base_vae": wan / "Wan2.1_VAE.pth"}
    trained = {"model.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin"}
    data = {"data.base_path": folder, "data.num_frames": 5, "data.height": 32, "data.width": 32}
    size = {"num_frames": 1, "height": 32, "width": 32, "device": "cpu"}
    return {
        "train-vae": {**vae, **data, "training.max_steps": 1, "loss.perceptual": "none"},
        "validate-vae": {**vae, **trained, "rgb_video": clip},
        "cache": {**vae, **trained, **data, "model.wan": wan},
        "train-dit": {"model.wan": wan, "cache": folder, "training.max_steps": 1},
        "generate": {**vae, **trained, **size, "model.wan": wan, "prompt": "a red <thing>", "guidance": 1},
        "merge": {"base": wan, "adapter": folder / "a.safetensors", "output": folder / "merged.safetensors"},
        "convert-adapter": {"source": folder / "a.safetensors", "output": folder / "b.safetensors", "to": "comfyui"},
    }  # fmt: skip


# Command -> the options that name weights; those of the adapters come after a base that is right.
OPTIONS = {
    "train-vae": ["model.base_vae"],
    "validate-vae": ["model.base_vae"],
    "cache": ["model.wan", "model.base_vae"],
    "train-dit": ["model.wan", "model.dit"],
    "generate": ["model.wan", "model.base_vae", "model.adapter", "model.distillation_lora", "model.embeddings"],
    "merge": ["base", "adapter"],
    "convert-adapter": ["source"],
}
OF_ONE_FILE = ("model.adapter", "model.distillation_lora", "model.embeddings", "adapter", "source")
EVERYWHERE = [(command, option) for command, options in OPTIONS.items() for option in options]


def image_vae(path, _):
    save_file(
        {"decoder.conv_in.weight": torch.zeros(8, 4, 3, 3), "encoder.conv_in.weight": torch.zeros(8, 3, 3, 3)}, path
    )


def flux(path, _):
    names = ("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight")
    save_file({name: torch.zeros(1, 1) for name in names}, path)


def truncated(path, _):
    save_file({"blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 8)}, path)
    path.write_bytes(path.read_bytes()[:-3])


def corrupted(path, _):
    path.write_bytes(safetensors_bytes({"a": tensor_entry([2**40, 2**40], 0, 4)}, bytes(4)))


def half_of_two(path, _):
    save_file({"patch_embedding.weight": torch.zeros(1)}, path)


def written(make):
    return lambda path, trace: path.write_bytes(make(trace))


# What is wrong -> (file name, how it is made, what is said of it).
BAD = {
    "a corrupted header": ("bad.safetensors", corrupted, "bad.safetensors: "),
    "a truncated file": ("bad.safetensors", truncated, "bad.safetensors: truncated"),
    "a missing shard": ("bad-00001-of-00002.safetensors", half_of_two, "00002-of-00002.safetensors missing; download"),
    "an image VAE": ("bad.safetensors", image_vae, "bad.safetensors: "),
    "another model": ("bad.safetensors", flux, "bad.safetensors: "),
    "a zip bomb": ("bad.pth", written(lambda _: zip_bomb(5_000_000)), "bad.pth: .*a zip bomb"),
    "code": ("bad.pth", written(pickle_with_code), "bad.pth: .*Nothing was run; ask its maker for safetensors"),
    "a name with ..": (
        "bad.pth", written(lambda _: zip_bytes({"a/data.pkl": b"", "../../x": b"1"})), "bad.pth: .*leaves its folder",
    ),
    "nothing there": ("absent.safetensors", lambda *_: None, "absent.safetensors: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_every_command_that_loads_them(name, good, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, make, message = BAD[name]
    path, trace = tmp_path / file, tmp_path / "trace"
    make(path, trace)
    wrong = []
    for command, option in EVERYWHERE:
        if name == "a missing shard" and option in OF_ONE_FILE:
            continue
        options = good[command] | {option: path}
        options |= {} if command in ("merge", "convert-adapter") else {"output_dir": tmp_path / "out"}
        code = main([command, *(text for key, value in options.items() for text in (f"--{key}", str(value)))])
        said = capsys.readouterr().err
        if code != 2 or not re.search(message, said, re.S) or "Traceback" in said or trace.exists():
            wrong.append(f"{command} {option}: {said.splitlines()[-1]}")
    assert not wrong, "\n".join(wrong)
    assert {one.name for one in tmp_path.iterdir()} <= {file, "out"}


@pytest.mark.parametrize("command", ["cache", "generate"])
def test_a_vae_of_the_wrong_kind_is_refused_before_anything_is_loaded(command, good, tmp_path, capsys, monkeypatch):
    """Wan2.2's with a model of 16 latent channels, Wan2.1's with TI2V-5B."""
    monkeypatch.setattr("wan_alpha.models.load.fill_module", lambda *_: pytest.fail("weights were loaded"))
    five = write_original(tmp_path, "ti2v")
    cases = [
        (
            {"model.base_vae": five / "Wan2.2_VAE.pth"},
            "Wan2.2_VAE.pth: a VAE of 48 latent channels",
            "go with Wan2.1_VAE",
        ),
        ({"model.wan": five}, "Wan2.1_VAE.pth: a VAE of 16 latent channels", "goes with Wan2.2_VAE.pth"),
    ]
    for changes, what, way_out in cases:
        options = good[command] | changes | {"output_dir": tmp_path / "out"}
        assert main([command, *(text for key, value in options.items() for text in (f"--{key}", str(value)))]) == 2
        said = capsys.readouterr().err
        assert what in said and way_out in said
