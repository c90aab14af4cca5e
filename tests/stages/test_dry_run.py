"""``--dry-run`` says what a run will take, as the run then does, and touches nothing."""

import re

import pytest
import torch

from wan_alpha.cli.main import main
from wan_alpha.models.adapters import add_adapter
from wan_alpha.models.load import load_dit, shape_dit
from wan_alpha.models.wan import predict_velocity
from wan_alpha.stages import stage1_vae, stage2_dit
from wan_alpha.stages.plan_dit import memory_of_steps
from wan_alpha.stages.plans import Assumptions, Target
from wan_alpha.stages.stage1_vae import ReconstructionModule, build_loss, build_vae, train_vae
from wan_alpha.stages.stage2_dit import train_dit
from wan_alpha.training.config import load_recipe
from wan_alpha.training.live_memory import LiveMemory
from wan_alpha.training.performance_file import read_performance
from wan_alpha.training.recipes import TrainDiTRecipe, TrainVAERecipe
from wan_alpha.weights.wan_layout import find_wan_files


@pytest.fixture(scope="module")
def given(cache_folder, wan_folder, dataset_folder, reference_dir):
    """Command -> its options, but for the output folder."""
    vae = {"model.base_vae": reference_dir / "base_vae.safetensors"}
    trained = {"training.max_steps": 3, "training.device": "cpu", "training.ema_decay": 0.9}
    size = {"data.base_path": dataset_folder, "data.num_frames": 5, "data.height": 32, "data.width": 32}
    stage1 = {**vae, **size, **trained, "loss.perceptual": "none", "model.lora_rank": 4, "training.batch_size": 2}
    stage2 = {"model.wan": wan_folder, "cache": cache_folder, "adapter.rank": 4, **trained, "repeat": 3}
    weights = {"model.wan": wan_folder, "model.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin"}
    return {"train-vae": stage1, "train-dit": stage2, "cache": {**vae, **size, **weights, "data.repeat": 2}}


def dry_run(command, options, folder, capsys):
    """What the command prints: name -> text of its line."""
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    assert main([command, *arguments, "--output_dir", str(folder), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    lines = (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in printed.splitlines() if line.startswith("  "))
    return dict(line for line in lines if len(line) == 2)


def num_bytes(text):
    return int(re.search(r"\((\d+) bytes\)", text)[1])


def everything_below(*folders):
    return {
        path: path.stat().st_mtime_ns for folder in folders for path in [folder, *folder.rglob("*")]
    }  # a new file in a folder changes the folder's time


@pytest.mark.parametrize("command", ["train-vae", "train-dit", "cache"])
def test_nothing_is_touched(given, tmp_path, cache_folder, dataset_folder, wan_folder, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    before = everything_below(tmp_path, cache_folder, dataset_folder, wan_folder)
    printed = dry_run(command, given[command], tmp_path / "out", capsys)
    assert everything_below(tmp_path, cache_folder, dataset_folder, wan_folder) == before
    assert printed["output_dir"] == str(tmp_path / "out") and printed["seed"] == "0"


def checkpoint_size(folder):
    last = max((folder / "checkpoints").glob("step_*"))
    return sum(path.stat().st_size for path in last.iterdir())


def assert_recorded(folder, command, **times):
    """The run's performance record has these stages, each so many times, with time and memory."""
    found = read_performance(folder)
    assert found["command"] == command and {name: found["stages"][name]["times"] for name in times} == times
    assert all(one["total_seconds"] >= 0 and one["memory_bytes"] > 0 for one in found["stages"].values())


def test_stage_1_is_as_was_said(given, tmp_path, capsys):
    printed = dry_run("train-vae", given["train-vae"], tmp_path, capsys)
    assert printed["video clips"] == "3" and printed["brought to 5x32x32"] == "3 clips"
    assert printed["of an epoch"] == "2" and printed["trained"].endswith(" numbers")
    result = train_vae(load_recipe(TrainVAERecipe, overrides={**given["train-vae"], "output_dir": tmp_path}))
    assert result.step == 3
    # Headers and JSON come on top: some bytes for each tensor, however large.
    assert 1 < checkpoint_size(tmp_path) / num_bytes(printed["a checkpoint"]) < 1.03
    assert_recorded(tmp_path, "train-vae", load=1, step=3, export=1)


def test_stage_2_is_as_was_said(given, tmp_path, capsys):
    printed = dry_run("train-dit", given["train-dit"], tmp_path, capsys)
    assert printed["latents of 16 x 2 x 4 x 4"] == "3 clips" and printed["of an epoch"] == "9"
    train_dit(load_recipe(TrainDiTRecipe, overrides={**given["train-dit"], "output_dir": tmp_path, "model.wan": str(
        given["train-dit"]["model.wan"])}))  # fmt: skip
    assert 0 < checkpoint_size(tmp_path) - num_bytes(printed["a checkpoint"]) < 60_000
    assert_recorded(tmp_path, "train-dit", load=1, step=3, export=1)


def real_peak(module, make_loss):
    """The most bytes of tensors in a step of real ones, weights and the optimizer's moments among them."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with LiveMemory() as live:
        for tensor in (*module.parameters(), *module.buffers()):
            live.note(tensor)
        make_loss(module).backward()
    return live.peak + 8 * sum(parameter.numel() for parameter in trained)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_peak_of_stage_2_is_that_of_real_tensors(given, tmp_path, kind, checkpointing):
    options = given["train-dit"] | {"training.gradient_checkpointing": checkpointing, "adapter.kind": kind}
    del options["training.ema_decay"]
    if kind == "full":
        del options["adapter.rank"]
    recipe = load_recipe(TrainDiTRecipe, overrides={**options, "output_dir": tmp_path, "model.wan": str(
        options["model.wan"])})  # fmt: skip
    shape, files = (16, 3, 20, 20), find_wan_files(recipe.model.wan).dit
    planned = memory_of_steps(shape_dit(files), recipe, Target("cpu", "CPU", None), Assumptions(), shape, 48)
    dit = load_dit(files).requires_grad_(kind == "full")
    if kind == "lora":
        add_adapter(dit, kind, rank=4)

    def make_loss(dit):
        latents = torch.zeros(1, *shape)
        velocity = predict_velocity(
            dit, latents, torch.zeros(1), torch.zeros(1, 48, 16), gradient_checkpointing=checkpointing
        )
        return (velocity.float() - latents).square().mean()

    tables = sum(table.nbytes for table in dit.freqs)  # of the rotary embedding, which stay in host memory
    assert planned.peak == pytest.approx(real_peak(dit, make_loss) - tables, rel=0.01)


def test_the_peak_of_stage_1_is_that_of_real_tensors(given, tmp_path, capsys):
    options = {name: value for name, value in given["train-vae"].items() if name != "training.ema_decay"}
    printed = dry_run("train-vae", options, tmp_path, capsys)
    recipe = load_recipe(TrainVAERecipe, overrides={**options, "output_dir": tmp_path})
    module = ReconstructionModule(build_vae(recipe.model, 0), build_loss(recipe.loss))
    rgb, alpha, grey = torch.zeros(2, 3, 5, 32, 32), torch.zeros(2, 1, 5, 32, 32), (0.0, 0.0, 0.0)

    def make_loss(module):
        predicted = module.vae.decode_raw(module.vae.encode_raw(rgb, alpha))
        return module.loss(*predicted, rgb, alpha, hard_background=grey, soft_background=grey)["total"]

    copy = num_bytes(printed["copy of a checkpoint"])
    assert num_bytes(printed["in all"]) - copy == pytest.approx(real_peak(module, make_loss), rel=0.01)


def test_less_is_kept_with_checkpointing_and_in_shards(given, tmp_path, capsys, monkeypatch):
    plain = dry_run("train-dit", given["train-dit"], tmp_path, capsys)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    options = given["train-dit"] | {"training.gradient_checkpointing": True}
    sharded = dry_run("train-dit", options, tmp_path, capsys)
    assert num_bytes(sharded["frozen weights"]) == num_bytes(plain["frozen weights"]) // 4
    assert num_bytes(sharded["in all"]) < num_bytes(plain["in all"])
    assert sharded["samples of a step"].startswith("4 (batch 1 x accumulation 1 x 4 process(es))")


def test_the_cache_is_as_was_said(given, tmp_path, capsys):
    printed = dry_run("cache", given["cache"], tmp_path, capsys)
    assert printed["items"] == "6, latents of 16 x 2 x 4 x 4"
    assert num_bytes(printed["latents and ellipses"]) == 6 * 4 * (16 * 32 + 32)


NO_FILE = "no/such/file"
SHOWN = {
    "training.preview_every": 1, "preview.base_vae": "base_vae.safetensors",
    "preview.rgba_weights": "rgba_vae_checkpoint.bin",
}  # fmt: skip
VALIDATED = {"data.validation_metadata": "metadata.csv", "training.validate_every": 5}


@pytest.mark.parametrize(
    ("command", "changes", "message"),
    [
        ("train-vae", {"data.base_path": NO_FILE}, "metadata.csv"),
        ("train-vae", {"training.validate_every": 1}, "training.validate_every has no effect without held-out clips"),
        ("train-vae", {"data.validation_metadata": "nope.csv"}, "nope.csv: no such manifest"),
        ("train-vae", VALIDATED | {"training.keep_best": "alpha_pnsr"}, "it gives rgb_psnr, rgb_mae, rgb_ssim, alpha_"),
        ("train-vae", {"training.trackers": "nothing-of-this-name"}, "no tracker that accelerate knows"),
        ("train-dit", {"cache": NO_FILE}, "build the cache"),
        ("train-dit", {"validation_cache": NO_FILE}, "build the cache"),
        ("train-dit", {"training.validate_every": 1}, "training.validate_every has no effect without held-out clips"),
        ("train-dit", {"training.trackers": "nothing-of-this-name"}, "no tracker that accelerate knows"),
        ("train-dit", {"training.keep_best": "los", "training.validate_every": 1, "validation_cache": "cache"},
         "keep_best = 'los': validation gives no such figure; it gives loss, velocity_mse"),
        ("train-dit", SHOWN | {"preview.base_vae": NO_FILE}, "no/such/file"),
        ("train-dit", SHOWN | {"preview.rgba_weights": NO_FILE}, "no/such/file"),
        ("train-dit", SHOWN | {"preview.prompts": "a cat"}, "has the caption 'a cat'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("switch", [["--dry-run"], []], ids=["dry run", "run"])
def test_what_the_run_would_refuse_is_refused(
    given, tmp_path, capsys, monkeypatch, reference_dir, dataset_folder, cache_folder, command, changes, message, switch
):
    places = {"metadata.csv": dataset_folder / "metadata.csv", "cache": cache_folder, "nope.csv": tmp_path / "nope.csv"}
    places |= {name: reference_dir / name for name in SHOWN.values() if isinstance(name, str)}
    for function in ("build_vae", "load_trained_dits"):  # nothing that is large was loaded by then
        module = stage1_vae if function == "build_vae" else stage2_dit
        monkeypatch.setattr(module, function, lambda *args, **kwargs: pytest.fail("loaded"))
    arguments = [text for name, value in (given[command] | changes).items()
                 for text in (f"--{name}", str(places.get(value, value)))]  # fmt: skip
    assert main([command, *arguments, "--output_dir", str(tmp_path / "out"), *switch]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out" / "checkpoints").exists()


def test_validation_gives_the_figures_that_it_is_known_for(given, tmp_path, dataset_folder):
    changes = VALIDATED | {"data.validation_metadata": dataset_folder / "metadata.csv", "training.max_steps": 1}
    recipe = load_recipe(TrainVAERecipe, overrides={**given["train-vae"], **changes, "output_dir": tmp_path / "vae"})
    assert tuple(train_vae(recipe).validation[0])[1:] == stage1_vae.VALIDATION_FIGURES
