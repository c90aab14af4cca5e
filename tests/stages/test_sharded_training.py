"""Stage 2 with its weights in shards (FSDP2), in replicas (DDP) and in one process: one and the same run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from processes import run_forked
from tiny_wan_files import write_dataset
from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files

from wan_alpha.cli.main import main as cli_main
from wan_alpha.errors import ConfigError
from wan_alpha.models.wan import load_wan
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.stage2_dit import train_dit
from wan_alpha.training.checkpoint_folder import find_problem
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import TrainDiTRecipe
from wan_alpha.training.run_folder import read_metrics
from wan_alpha.training.sharded_files import read_whole
from wan_alpha.training.sharding import mesh_sizes
from wan_alpha.weights.adapters import read_adapter
from wan_alpha.weights.io import load_state_dict, read_metadata

SCRIPT = Path(__file__).with_name("stage2_processes.py")
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
PARALLELISM = {"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}
# Sums over samples come in another order: so far may figures of the same steps differ, relatively, and so far trained
# weights, as a vector. AdamW makes steps as long of gradients that are nothing but rounding as of any other.
ROUNDING, WEIGHTS_ROUNDING = 2e-4, 2e-3


def launch(folder, runs, num_processes=2):
    """Make the runs one after the other in the processes of one job; what each process saw, run by run."""
    listed = folder / "runs.json"
    listed.write_text(json.dumps(runs))
    run_forked(SCRIPT, listed, num_processes=num_processes)
    return [json.loads((folder / f"seen.{rank}.json").read_text()) for rank in range(num_processes)]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory, wan_folder, make_cache_recipe):
    """make_run(name, **{"dotted.name": value}) -> (recipe file, recipe): a run in its own folder, on five clips."""
    top = tmp_path_factory.mktemp("sharded")
    for name, num_clips in (("cache", 5), ("held_out", 2)):
        dataset = write_dataset(top / f"{name} clips", num_clips=num_clips)
        build_cache(make_cache_recipe(top / name, **{"data.base_path": dataset}))

    def make(name, **changes):
        overrides = {
            "output_dir": top / name, "model.wan": str(wan_folder), "cache": top / "cache", "adapter.rank": 4,
            "validation_cache": top / "held_out", "adapter.alpha": 8, "training.max_steps": 6, "training.device": "cpu",
            "training.learning_rate": 1e-2, "training.ema_decay": 0.9, "training.checkpoint_every": 1,
            "training.keep_checkpoints": 99, "training.batch_size": 1, "training.gradient_checkpointing": True,
            "trigger_words": ["redball"],
        }  # fmt: skip
        given = {key: value for key, value in (overrides | changes).items() if value is not None}
        recipe = load_recipe(TrainDiTRecipe, overrides=given)
        (top / f"{name}.json").write_text(json.dumps(recipe.as_dict()))
        return top / f"{name}.json", recipe

    return make


@pytest.fixture(scope="module")
def runs(make_run, tmp_path_factory, reference_dir):
    """Name -> (recipe, what each process saw of the run, in the order of the calls): all in one job."""
    accumulating = {"training.gradient_accumulation": 2, "repeat": 3, "training.max_steps": 4}
    full = {"adapter.kind": "full", "adapter.rank": None, "adapter.alpha": None, "training.max_steps": 3}
    vae = {"base_vae": "base_vae.safetensors", "rgba_weights": "rgba_vae_checkpoint.bin"}
    previews = {f"preview.{name}": reference_dir / file for name, file in vae.items()}
    previews |= {"training.preview_every": 3, "preview.num_steps": 2}
    seldom = {"training.checkpoint_every": None}
    plan = [
        ("one", {"training.batch_size": 2}, {}),
        ("replicated", {}, {}),
        ("sharded", previews, FSDP2),
        ("accumulating", accumulating | seldom, FSDP2),
        ("full", full, FSDP2),
        ("bad", seldom, {**FSDP2, "bad_calls": [2, 5]}),
        ("stopped", {}, {**FSDP2, "stop_at": 2}),
        ("stopped", {}, {**FSDP2, "stop_at": 3}),
        ("stopped", {}, FSDP2),
        ("from replicated", seldom, {**FSDP2, "continues": "replicated"}),
        ("from sharded", seldom, {"continues": "sharded"}),
        ("unsaved", {}, {**FSDP2, "fails_to_write": True}),
        ("lost", {}, {**FSDP2, "loses_folder": True}),
        ("lost in the foreground", {"training.background_saving": False}, {**FSDP2, "loses_folder": True}),
    ]
    made = {name: make_run(name, **changes) for name, changes, _ in plan}
    listed = [
        {"recipe": str(made[name][0]), **{key: value for key, value in how.items() if key.islower()},
         "environment": {key: value for key, value in how.items() if key.isupper()}}
        for name, _, how in plan[1:]
    ]  # fmt: skip
    seen = launch(tmp_path_factory.mktemp("launched"), listed)
    train_dit(made["one"][1])
    found = {name: (recipe, [[], []]) for name, (_, recipe) in made.items()}
    for (name, _, _), *by_rank in zip(plan[1:], *seen, strict=True):
        for rank, what in enumerate(by_rank):
            found[name][1][rank].append(what)
    return found


def losses(recipe):
    return [row["loss"] for row in read_metrics(recipe.output_dir)]


def weights(recipe, name="adapter.safetensors"):
    return load_state_dict(recipe.output_dir / name)


def distance(ours, theirs):
    """The largest ||a - b|| / ||b|| of the tensors of one name."""
    assert set(ours) == set(theirs)
    return max(float((ours[key] - theirs[key]).norm() / theirs[key].norm()) for key in theirs)


def everything(recipe):
    """Name -> bytes of metrics, final weights and the last checkpoint, file by file."""
    last = max((recipe.output_dir / "checkpoints").glob("step_*"))
    paths = [recipe.output_dir / "metrics.jsonl", recipe.output_dir / "adapter.safetensors", *last.rglob("*.*")]
    # Recipes, in files' headers and so in the checksums, name their folders.
    others = ("adapter.safetensors", "checksums.json", "complete.json")
    names = [path for path in paths if path.is_file() and path.name not in others]
    return {str(path.relative_to(recipe.output_dir)): path.read_bytes() for path in names}


@pytest.mark.parametrize("name", ["replicated", "sharded", "from replicated", "from sharded"])
def test_two_processes_equal_one(runs, name):
    (one, _), (recipe, seen) = runs["one"], runs[name]
    assert [call["code"] for rank in seen for call in rank] == [0, 0]
    for figure in ("loss", "gradient_norm"):
        ours, theirs = ([row[figure] for row in read_metrics(run.output_dir)] for run in (recipe, one))
        assert ours == pytest.approx(theirs, rel=ROUNDING)
    assert distance(weights(recipe), weights(one)) < WEIGHTS_ROUNDING


def test_an_uneven_step_equals_one_process(runs, make_run):
    """Micro-batches of one clip, two to a process and step; of the last step's three clips one process has one."""
    _, one = make_run(
        "accumulating alone", **{"training.gradient_accumulation": 4, "repeat": 3, "training.max_steps": 4}
    )
    train_dit(one)
    assert losses(runs["accumulating"][0]) == pytest.approx(losses(one), rel=ROUNDING)


def test_each_process_holds_and_writes_its_part(runs):
    recipe, _ = runs["sharded"]
    checkpoint = recipe.output_dir / "checkpoints" / "step_00000003"
    marker = json.loads((checkpoint / "complete.json").read_text())["files"]
    found = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    assert found - {"checksums.json", "complete.json"} == set(marker)
    for what in ("model", "ema"):
        sizes = [marker[f"{what}/shard_0000{rank}_of_00002.safetensors"]["bytes"] for rank in (0, 1)]
        assert max(sizes) < 1.2 * min(sizes)
        parts = [load_state_dict(path) for path in sorted((checkpoint / what).iterdir())]
        whole = read_whole(checkpoint / what)
        assert sum(tensor.numel() for part in parts for tensor in part.values()) == sum(
            map(torch.numel, whole.values())
        )


def test_previews_are_made_by_all_and_written_once(runs):
    found = sorted(path.name for path in (runs["sharded"][0].output_dir / "previews").rglob("*.png"))
    assert found == ["prompt_0.png", "prompt_0.png", "prompt_1.png", "prompt_1.png"]


def test_a_damaged_shard_is_noticed(runs, tmp_path):
    recipe, _ = runs["sharded"]
    shutil.copytree(recipe.output_dir / "checkpoints" / "step_00000002", tmp_path / "step_00000002")
    path = tmp_path / "step_00000002" / "optimizer" / "shard_00001_of_00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    assert find_problem(tmp_path / "step_00000002") == f"the checksum of optimizer/{path.name} differs"


def test_torchs_own_tools_read_the_shards(runs, tmp_path):
    recipe, _ = runs["sharded"]
    checkpoint = recipe.output_dir / "checkpoints" / "step_00000006"
    consolidate_safetensors_files(str(checkpoint / "model"), str(tmp_path), fqn_to_index_mapping=dict.fromkeys(
        read_whole(checkpoint / "model"), 1))  # fmt: skip
    (written,) = tmp_path.glob("*.safetensors")
    assert {key: value.tolist() for key, value in load_state_dict(written).items()} == {
        key: value.tolist() for key, value in read_whole(checkpoint / "model").items()
    }


@pytest.mark.parametrize(
    ("name", "weights"), [("sharded", "trained"), ("sharded", "average"), ("replicated", "trained")]
)
def test_a_checkpoint_becomes_one_file(runs, tmp_path, name, weights):
    """The adapter as the run exports it, from shards or not, and readable as such."""
    run = runs[name][0].output_dir
    given = ["export-checkpoint", str(run), str(tmp_path / "adapter.safetensors"), "--weights", weights]
    assert cli_main(given) == 0
    # At the end of a run the average takes the weights' place in what is exported.
    expected = load_state_dict(run / "adapter.safetensors")
    kind = "ema" if weights == "average" else "model"
    written = load_state_dict(tmp_path / "adapter.safetensors")
    assert set(written) == set(expected)
    assert all(torch.equal(written[key], expected[key]) for key in expected) == (kind == "ema")
    adapter = read_adapter(tmp_path / "adapter.safetensors")
    assert (adapter.kind, len(adapter.modules)) == ("dora", 20)
    # It says all that the run's own file says of itself, its origin among that; the hash is of what it holds.
    said, hashed = read_metadata(run / "adapter.safetensors"), "modelspec.hash_sha256"
    found = adapter.metadata
    assert {"modelspec.title", "modelspec.date", "trigger_words", "tokens", "recipe_sha256", hashed} <= said.keys()
    assert found.keys() - said.keys() == {"step"} and "expert" not in said, "the model has one DiT"
    assert {name for name in said if found[name] != said[name]} == (set() if kind == "ema" else {hashed})
    assert adapter.card.trigger_words == ("redball",)


def test_every_weight_becomes_one_file(runs, tmp_path):
    run = runs["full"][0].output_dir
    for step in (2, 3):
        checkpoint = run / "checkpoints" / f"step_0000000{step}"
        assert cli_main(["export-checkpoint", str(checkpoint), str(tmp_path / f"{step}.safetensors")]) == 0
    last = load_wan([str(tmp_path / "3.safetensors")], components=("dit",)).dit
    assert last.blocks[0].self_attn.num_heads == 2
    assert not torch.equal(last.head.modulation, load_state_dict(tmp_path / "2.safetensors")["head.modulation"])
    said, found = (read_metadata(path) for path in (run / "dit.safetensors", tmp_path / "3.safetensors"))
    assert "modelspec.title" in said and found.keys() - said.keys() == {"step"}
    assert {name for name in said if found[name] != said[name]} == {"modelspec.hash_sha256"}


@pytest.mark.parametrize(
    ("place", "message"),
    [("checkpoints/step_00000099", "no such folder"), ("damaged", "is missing")],
)
def test_only_a_whole_checkpoint_is_exported(runs, tmp_path, capsys, place, message):
    run = tmp_path / "run"
    shutil.copytree(runs["full"][0].output_dir / "checkpoints" / "step_00000003", run / "damaged")
    (run / "damaged" / "model" / "shard_00001_of_00002.safetensors").unlink()
    assert cli_main(["export-checkpoint", str(run / place), str(tmp_path / "x.safetensors")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "x.safetensors").exists()


def test_stopping_and_going_on_is_the_same_run_to_the_bit(runs):
    stopped, seen = runs["stopped"]
    assert [[call["code"] for call in rank] for rank in seen] == [[75, 75, 0]] * 2
    assert everything(stopped) == everything(runs["sharded"][0])
    assert all(torch.equal(value, weights(runs["sharded"][0])[key]) for key, value in weights(stopped).items())


def test_a_bad_number_on_one_process_skips_the_update_everywhere(runs):
    recipe, seen = runs["bad"]
    for rank in seen:
        hashes = rank[0]["hashes"]
        assert [number for number in range(1, 6) if hashes[number] == hashes[number - 1]] == [2, 5]
    rows = read_metrics(recipe.output_dir)
    assert [row["step"] for row in rows if row["loss"] is None] == [2, 5] and rows[-1]["skipped_updates"] == 2


@pytest.mark.parametrize("name", ["unsaved", "lost", "lost in the foreground"])
def test_what_one_process_cannot_write_ends_all_and_leaves_no_folder(runs, name):
    """Its disk is full, or it sees the folder no more and cannot even say so there: the first does not wait for it."""
    recipe, seen = runs[name]
    assert [call["code"] for rank in seen for call in rank] == [2, 2]
    assert list((recipe.output_dir / "checkpoints").iterdir()) == []


def test_two_processes_to_one(runs, make_run):
    """The shards of two processes go on in one; other options must leave a step's size as it was."""
    source = runs["sharded"][0].output_dir
    _, refused = make_run("in one process", **{"training.gradient_accumulation": 3})
    for number in (2, 3):
        name = f"checkpoints/step_{number:08d}"
        shutil.copytree(source / name, refused.output_dir / name)
    for name in ("metrics.jsonl", "recipe.json"):
        shutil.copy(source / name, refused.output_dir)
    with pytest.raises(ConfigError, match="steps of 2 samples, now they have 3 .*gradient_accumulation = 2"):
        train_dit(refused)
    _, recipe = make_run("in one process", **{"training.gradient_accumulation": 2})
    assert train_dit(recipe).resumed_from == 3
    assert losses(recipe) == pytest.approx(losses(runs["one"][0]), rel=ROUNDING)
    assert distance(weights(recipe), weights(runs["one"][0])) < WEIGHTS_ROUNDING


def test_every_weight_of_the_dit_in_shards(runs, make_run):
    recipe, _ = runs["full"]
    full = {"adapter.kind": "full", "adapter.rank": None, "adapter.alpha": None, "training.max_steps": 3}
    _, one = make_run("full alone", **{"training.batch_size": 2, **full})
    train_dit(one)
    assert losses(recipe) == pytest.approx(losses(one), rel=ROUNDING)
    assert distance(weights(recipe, "dit.safetensors"), weights(one, "dit.safetensors")) < WEIGHTS_ROUNDING


@pytest.mark.slow
def test_groups_of_processes_with_all_weights_each(make_run, tmp_path, runs):
    """Hybrid: two groups of two. Steps of four clips are those of one process that accumulates four."""
    changes = {"training.max_steps": 3, "repeat": 3}
    path, recipe = make_run("hybrid", **changes)
    sizes = {"PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2", "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2"}
    launched = {**FSDP2, "ACCELERATE_USE_PARALLELISM_CONFIG": "true", **sizes}
    seen = launch(tmp_path, [{"recipe": str(path), "environment": launched}], num_processes=4)
    assert [call["code"] for rank in seen for call in rank] == [0] * 4
    _, one = make_run("hybrid alone", **changes, **{"training.gradient_accumulation": 4})
    train_dit(one)
    assert losses(recipe) == pytest.approx(losses(one), rel=ROUNDING)
    shards = recipe.output_dir / "checkpoints" / "step_00000003" / "model"
    whole = read_whole(shards)
    # The second group has the same weights: what it would write is written once.
    assert sum(load_state_dict(path)[key].numel() for path in shards.iterdir() for key in load_state_dict(path)) == sum(
        map(torch.numel, whole.values())
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "set fsdp_version: 2"),
        ({**FSDP2, "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        ({**FSDP2, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "training.gradient_checkpointing"),
        ({**FSDP2, **PARALLELISM, "PARALLELISM_CONFIG_DP_SHARD_SIZE": "3"}, "3 must be the number of processes, 4"),
        ({**FSDP2, **PARALLELISM, "PARALLELISM_CONFIG_TP_SIZE": "2"}, "dp_replicate_size and dp_shard_size here"),
        ({**PARALLELISM, "PARALLELISM_CONFIG_DP_SHARD_SIZE": "4"}, "add use_fsdp and fsdp_version: 2"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        mesh_sizes(4)


@pytest.mark.parametrize(
    ("environment", "sizes"),
    [({}, None), (FSDP2, (1, 4)), ({**PARALLELISM, "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "4"}, None)],
)
def test_sizes_follow_from_accelerates_configuration(monkeypatch, environment, sizes):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert mesh_sizes(4) == sizes
