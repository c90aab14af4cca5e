"""Every long operation tells a front end how far it is: callback(stage, done, total), stage by stage, to its end."""

import pytest
import torch
from safetensors.torch import save_file
from test_dry_run import given  # noqa: F401 (a fixture)

from wan_alpha.cli.main import main
from wan_alpha.models.adapters import add_adapter, save_adapter
from wan_alpha.models.load import load_wan
from wan_alpha.training.progress import report_progress
from wan_alpha.weights.io import rounded_sha256

FREE = {"limits.min_side": "none", "workers": 1}  # the clips are tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory, given, wan_folder, dataset_folder, cache_folder, reference_dir):  # noqa: F811
    """Name -> what the commands below are given."""
    folder = tmp_path_factory.mktemp("told")
    dit = load_wan(str(wan_folder), components=("dit",)).dit
    sha256 = rounded_sha256(dit.state_dict())
    for parameter in add_adapter(dit, "dora", 2, 2):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).abs() * 0.1
    save_adapter(dit, folder / "dora.safetensors", kind="dora", rank=2, alpha=2, base_sha256=sha256)
    save_file({"<thing>": torch.ones(1, 16)}, folder / "thing.safetensors")
    vae = {"model.base_vae": reference_dir / "base_vae.safetensors"}
    trained = {"model.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin"}
    clip, sizes = dataset_folder / "000_rgb.mkv", {"num_frames": 5, "height": 32, "width": 32}
    stage2 = {**given["train-dit"], "output_dir": folder / "run", "training.max_steps": 1, "repeat": 1}
    return {
        "folder": folder, "wan": wan_folder, "adapter": folder / "dora.safetensors", "clips": dataset_folder,
        "clip": clip, "vae": vae, "trained": trained, "sizes": sizes, "stage2": stage2, "given": given,
        "cache": cache_folder,
    }  # fmt: skip


def training(files):
    held_out = {"validation_cache": files["cache"], "training.preview_every": 1, "training.trackers": ""}
    previews = {f"preview.{name.partition('.')[2]}": path for name, path in (files["vae"] | files["trained"]).items()}
    return {**files["stage2"], **held_out, **previews, "preview.num_steps": 1}


def placeholder(files):
    word = {"textual_inversion.placeholder": "circle,", "textual_inversion.initializer": "o"}
    return {
        **files["stage2"],
        **word,
        "adapter.kind": "none",
        "adapter.rank": 32,
        "output_dir": files["folder"] / "word",
    }


def reconstruction(files):
    held_out = {"data.validation_metadata": files["clips"] / "metadata.csv", "data.validation_clips": 1}
    return {**files["given"]["train-vae"], **held_out, "training.max_steps": 1}


def generation(files):
    weights = {"model.wan": files["wan"], **files["vae"], **files["trained"], "model.adapter": files["adapter"]}
    return {
        **weights,
        **files["sizes"],
        "num_steps": 1,
        "guidance": 1,
        "prompt": "o",
        "formats": "png",
        "device": "cpu",
    }


# Command -> (options, stages that are told). Stages that only sometimes come are not asked for.
COMMANDS = {
    "cache": (lambda files: files["given"]["cache"], {"loading", "hashing", "captions", "clips"}),
    "train-vae": (reconstruction, {"validating", "stage 1 (full)"}),
    "train-dit": (training, {"loading", "hashing", "training", "validating", "previewing"}),
    "train-dit, a placeholder": (placeholder, {"loading", "hashing", "training"}),
    "export-checkpoint": (
        lambda files: {"checkpoint": files["folder"] / "run", "output": files["folder"] / "out.safetensors"},
        {"exporting"},
    ),
    "generate": (generation, {"loading", "hashing", "sampling", "decoding", "verifying"}),
    "merge": (
        lambda files: {"base": files["wan"], "adapter": files["adapter"], "output": files["folder"] / "m.safetensors"},
        {"merging"},
    ),
    "convert-adapter": (
        lambda files: {"source": files["adapter"], "output": files["folder"] / "comfyui.safetensors", "to": "comfyui",
                       "base": files["wan"]},
        {"converting"},
    ),
    "convert": (
        lambda files: {"source": files["clip"], "matte": files["clips"] / "000_alpha.mkv",
                       "output": files["folder"] / "clip.webp"},
        {"converting", "verifying"},
    ),
    "prepare": (lambda files: {"source_dir": files["clips"], **FREE}, {"checking clips"}),
    "doctor": (lambda files: {"dataset": files["clips"], **FREE}, {"checking clips"}),
    "evaluate": (lambda files: {"pred": files["clips"], "reference": files["clips"]}, {"evaluating"}),
    "validate-vae": (
        lambda files: {"rgb_video": files["clip"], "alpha_video": files["clips"] / "000_alpha.mkv", **files["vae"],
                       **files["trained"]},
        {"validating"},
    ),
    "report": (lambda files: {"runs": files["folder"] / "clip.webp"}, {"writing clips"}),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_long_operation_tells_how_far_it_is(name, files, tmp_path, capsys):
    options, expected = COMMANDS[name]
    command, told = name.partition(",")[0], {}
    given_options = {"output_dir": tmp_path / "out"} | options(files)
    if command in ("export-checkpoint", "merge", "convert-adapter", "convert"):
        given_options.pop("output_dir")
    arguments = [text for key, value in given_options.items() for text in (f"--{key}", str(value))]
    with report_progress(lambda stage, done, total: told.setdefault(stage, []).append((done, total))):
        code = main([command, *arguments])
    assert code in (0, 1), capsys.readouterr().err
    assert expected <= told.keys()
    for stage in expected:
        steps = told[stage]
        assert all(total is None or 0 <= done <= total for done, total in steps), stage
        last, total = steps[-1]
        assert last > 0 and total in (None, last), stage
