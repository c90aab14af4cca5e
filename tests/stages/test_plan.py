"""``wan-alpha plan``: what is assumed, when it fits, what to change; the presets keep to the memory they name."""

import json
import math
import re
from dataclasses import replace

import pytest
from test_dry_run import given  # noqa: F401 (a fixture)
from tiny_wan_files import write_dit

from wan_alpha.cli.main import main
from wan_alpha.cli.plan import make_result, read_planned_recipe
from wan_alpha.data.buckets import Bucket
from wan_alpha.data.latent_cache import LatentCache
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.stages import memory_check
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.memory_check import check_memory
from wan_alpha.stages.plan_cache import plan_cache
from wan_alpha.stages.plan_changes import Advice, advise
from wan_alpha.stages.plan_dit import plan_dit
from wan_alpha.stages.plans import HEADROOM, Assumptions, Plan, Target
from wan_alpha.stages.stage2_dit import train_dit
from wan_alpha.training.config import preset_file
from wan_alpha.training.foresight import GIB
from wan_alpha.training.recipes import PlanRecipe
from wan_alpha.training.timing import read_timings
from wan_alpha.weights.registry import known_model, known_models

# Preset -> (GiB, processes that the weights are in parts over): what its name or its head says.
PRESETS = {
    "stage1_mac": (16, 1), "stage1_rgba_vae_24gb": (24, 1), "stage1_rgba_vae_80gb": (80, 1),
    "stage2_dora_1_3b_24gb": (24, 1), "stage2_dora_14b_80gb": (80, 1), "stage2_dora_a14b_high_80gb": (80, 1),
    "stage2_dora_a14b_low_80gb": (80, 1), "stage2_full_1_3b_80gb": (80, 1), "stage2_lora_1_3b_16gb": (16, 1),
    "stage2_lora_1_3b_8gb": (8, 1), "stage2_textual_inversion_8gb": (8, 1), "stage2_ti2v_5b_4gpus": (80, 4),
}  # fmt: skip


def planned(config, **options):
    recipe = PlanRecipe(config=config, **options)
    return make_result(recipe, *read_planned_recipe(config, recipe.for_command, recipe.overrides))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_to_the_memory_in_their_names(name):
    memory, processes = PRESETS[name]
    own = {"processes": processes, "sharded": True} if processes > 1 else {}
    if name == "stage1_mac":
        own["device"] = "mps"
    result = planned(name, device_memory_gib=memory, **own)
    assert result.passed and result.plan.peak <= (1 - HEADROOM) * memory * GIB
    head = " ".join(line.lstrip("# ") for line in preset_file(name).read_text().splitlines() if line.startswith("#"))
    said = float(re.search(r": ([\d.]+) GiB", head)[1])
    assert said == pytest.approx(result.plan.peak / GIB, rel=0.02) and "not measured on" in head
    assert re.search(r"_(\d+)gb$", name) is None or int(re.search(r"_(\d+)gb$", name)[1]) == memory


WORD = {"textual_inversion.placeholder": "<x>", "textual_inversion.initializer": "cat"}
# Phase as examples/measure_memory.py measures it -> options of its recipe, and what of the plan's memory it has.
MEASURED = {
    "text": ({}, ["text encoder, captions"]), "encoding": ({}, ["RGBA VAE, clips"]),
    "lora": ({"adapter.kind": "lora"}, []), "dora": ({"adapter.kind": "dora"}, []),
    "textual_inversion": ({"adapter.kind": "none", **WORD}, []),
}  # fmt: skip
# Model -> presets of its cache and of training it.
OF_MODEL = {
    "Wan2.1-T2V-1.3B": ("cache_1_3b", "stage2_dora_1_3b"), "Wan2.2-TI2V-5B": ("cache_ti2v_5b", "stage2_dora_1_3b")
}  # fmt: skip


def test_no_measurement_is_left_unchecked():
    for model in known_models().values():
        shared = known_model("Wan2.1-T2V-1.3B").memory
        own = {phase for phase in MEASURED if model.memory[phase] not in (None, shared[phase])}
        assert model.name in OF_MODEL or model.name == "tiny" or not own


@pytest.mark.parametrize("name", OF_MODEL)
@pytest.mark.parametrize("phase", MEASURED)
def test_predictions_are_within_a_tenth_of_the_registrys_measurements(name, phase):
    measured, (options, parts) = known_model(name).memory[phase], MEASURED[phase]
    if measured is None:
        pytest.skip("not measured")
    overrides = {"model.wan": f"models/{name}", **options}
    if parts:
        overrides["precision"] = measured["precision"]
    else:
        overrides |= {"training.precision": measured["precision"], "training.gradient_checkpointing": True}
    preset, clip = OF_MODEL[name][0 if parts else 1], measured["clip"] or "17x256x256"
    memory = planned(preset, device="cpu", bucket=clip, overrides=overrides).plan.memory
    # A training step by itself has no checkpoint beside it.
    counted = parts or [name for name in memory if name not in ("copy of a checkpoint", "in all")]
    assert sum(memory[name] for name in counted) / GIB == pytest.approx(measured["gib"], rel=0.1)


def test_a_plan_says_what_it_assumed_and_how_long_it_takes(capsys):
    assert main(["plan", "--config", "tiny_stage2", "--device", "cpu", "--seconds_per_step", "9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "train-dit" and found["num_steps"] == 800 and found["hours"] == 2.0
    assert found["tokens_per_step"] == 8 * 48 and any("data/tiny_cache is not there" in one for one in found["assumed"])
    assert found["memory"]["in all"] == found["peak"] == sum(list(found["memory"].values())[:-1])


def test_a_plan_prints_the_figures_of_the_dry_run(
    given,  # noqa: F811
    tmp_path,
    capsys,
):
    for command in ("train-vae", "train-dit", "cache"):
        options = {"output_dir": tmp_path / "out", **given[command]}
        (tmp_path / "recipe.toml").write_text("")
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        assert main([command, *arguments, "--dry-run"]) == 0
        dry = capsys.readouterr().out
        assert main(["plan", "--config", str(tmp_path / "recipe.toml"), "--for", command, *arguments]) == 0
        printed = capsys.readouterr().out
        for title in ("data", "steps", "memory of a process", "disk"):
            if command == "cache" and title == "steps":
                continue
            table = re.search(rf"^{title}:\n(?:  .*\n)+", dry, re.MULTILINE)[0]
            assert table in printed
        assert "assumed:" not in printed


def stub_plan(factors, memory=100.0):
    """(recipe, target, bucket) -> Plan whose peak is the product of the factors of what was changed."""

    def make_plan(recipe, target, bucket):
        peak = 100.0 if bucket is None else 100.0 * factors.get("clips", {}).get(bucket.height, 2.0)
        peak *= factors["checkpointing"] if recipe.training.gradient_checkpointing else 1
        peak *= factors.get("batch", 1) if recipe.training.batch_size == 1 else 1
        peak *= factors.get(target.shards, 1)
        return Plan("train-dit", Target("cuda", "a card", memory, 1, target.shards), {}, {"in all": peak}, {})

    return make_plan


def advice(factors, memory):
    _, recipe = read_planned_recipe("tiny_stage2")
    make_plan = stub_plan(factors, memory)
    return advise(recipe, make_plan(recipe, Target("cuda", "", None), None).target, Bucket(17, 64, 64), make_plan)


def test_changes_that_lower_the_peak_are_told_and_the_first_that_fit_together():
    checkpointing, batch = "training.gradient_checkpointing = true", "training.batch_size = 1 with"
    found = advice({"checkpointing": 0.5, "batch": 0.5, 4: 0.9}, memory=30)
    assert found.combined[0] == checkpointing and found.combined[1].startswith(batch) and len(found.combined) == 2
    assert found.peak == 25 and [peak for _, peak in found.single] == [50, 50, 90]
    assert advice({"checkpointing": 0.5, "batch": 0.5}, memory=60).combined == [checkpointing]
    smaller = advice({"checkpointing": 0.9, "clips": {32: 0.5, 64: 0.9}, 2: 0.8, 4: 0.2}, memory=10)
    assert smaller.combined == [checkpointing, "clips of 17x32x32", "FSDP2 over 4 processes"]
    # One change that fits is better than several of which one costs as much; time alone is better than more devices.
    alone = advice({"checkpointing": 0.9, "clips": {32: 0.5, 64: 0.9}, 2: 0.8, 4: 0.3, 8: 0.1}, memory=15)
    assert alone.combined == ["FSDP2 over 8 processes"] and alone.peak == 10
    assert alone.lines()[-1] == "with this alone it fits, 0.00 MiB: FSDP2 over 8 processes"
    patient = advice({"checkpointing": 0.5, "batch": 0.5, 8: 0.1}, memory=30)
    assert patient.combined[0] == checkpointing and len(patient.combined) == 2
    hopeless = advice({"checkpointing": 0.9}, memory=10)
    assert hopeless.combined == [] and "do not make it fit" in hopeless.lines()[-1]


def test_what_shards_cannot_do_is_no_advice_and_more_of_them_are():
    """FSDP2 refuses what was taken before it: it is tried without."""
    sharded = planned("tiny_stage2", device="cuda", device_memory_gib=0.001, processes=2, sharded=True,
                      overrides={"adapter.kind": "lora"})  # fmt: skip
    told = [text for text, _ in sharded.advice.single]
    assert not any(name in text for text in told for name in ("quantization", "offload_blocks", "8bit"))
    assert [text for text in told if "FSDP2" in text] == [f"FSDP2 over {number} processes" for number in (4, 8)]
    _, recipe = read_planned_recipe("tiny_stage2")

    def make_plan(recipe, target, bucket):
        peak = 100.0 / target.shards * (0.9 if recipe.training.optimizer == "adamw_8bit" else 1)
        peak *= 1 if bucket is None else 0.5
        return Plan("train-dit", replace(target, memory=8.0), {}, {"in all": peak}, {})

    found = advise(recipe, Target("cuda", "", 8.0), Bucket(17, 64, 64), make_plan)
    assert found.peak == 6.25 and [text[:5] for text in found.combined] == ["clips", "FSDP2"]


def test_what_a_change_brings_is_what_a_plan_with_it_says(capsys):
    arguments = ["--config", "tiny_stage2", "--device", "cuda", "--device_memory_gib", "0.015", "--json"]
    arguments += ["--adapter.kind", "lora", "--training.batch_size", "1"]
    assert main(["plan", *arguments]) == 1
    found = json.loads(capsys.readouterr().out)
    told = {one["change"]: one["peak"] for one in found["changes"]}
    assert all(peak < found["peak"] for peak in told.values()) and found["together"]
    chosen = [change.split(" = ")[0] for change in found["together"]]
    assert len(set(chosen)) == len(chosen), "one value of an option"
    main(["plan", *arguments, "--training.gradient_checkpointing", "true"])
    assert json.loads(capsys.readouterr().out)["peak"] == told["training.gradient_checkpointing = true"]


def test_what_waits_in_host_memory_is_told_and_counted():
    plan = planned("stage2_textual_inversion_8gb", device_memory_gib=8, num_samples=1).plan
    in_dit = 30 * (8 * 1536**2 + 2 * 1536 * 8960)  # 1.3B: two attentions and a feed-forward a block
    in_text_encoder = 24 * (4 * 4096**2 + 3 * 4096 * 10240)  # UMT5-XXL
    assert plan.host_memory == 2 * (in_dit + in_text_encoder) and "waiting" in plan.tables()["memory of a process"][
        "host memory"
    ]  # fmt: skip
    for host, fits in ((None, True), (12 * GIB, True), (8 * GIB, False)):
        on_machine = replace(plan, target=replace(plan.target, host_memory=host))
        assert on_machine.fits() == fits == on_machine.verdict().startswith("fits: ")
    assert "11.22 GiB of the 8.00 GiB of this machine's memory" in on_machine.verdict()


def test_where_device_and_host_have_one_memory_what_waits_is_part_of_it():
    options = {"training.gradient_checkpointing": True, "adapter.kind": "lora"}
    offloads = ("training.offload_blocks", "training.offload_activations")
    plain, offloading = (
        planned("tiny_stage2", device="cpu", overrides=options | dict.fromkeys(names, True)).plan
        for names in ((), offloads)
    )
    on_gpu = planned("tiny_stage2", device_memory_gib=8, overrides=options | dict.fromkeys(offloads, True)).plan
    assert plain.host_memory == offloading.host_memory == 0 < on_gpu.host_memory
    assert 0 < offloading.memory["what waits for its block"] and offloading.peak >= plain.peak


def test_an_earlier_runs_steps_are_taken(tmp_path):
    rows = [{"step": n, "seconds": seconds, "place": "none x 1"} for n, seconds in enumerate([3, 1, 2])]
    (tmp_path / "timings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = planned("tiny_stage2", measured=tmp_path)
    assert result.seconds_per_step == 2 and "3 steps" in result.source and result.hours == pytest.approx(1600 / 3600)
    with pytest.raises(ConfigError, match=r"there is no timings.jsonl"):
        planned("tiny_stage2", measured=tmp_path / "none")


def test_of_a_run_that_moved_the_steps_of_its_last_device_are_taken(tmp_path):
    moved = [(40.0, "none x 1")] * 60 + [(2.0, "NVIDIA H100 x 1")] * 40
    rows = [json.dumps({"step": n, "seconds": seconds, "place": place}) for n, (seconds, place) in enumerate(moved)]
    (tmp_path / "timings.jsonl").write_text("\n".join(rows))
    result = planned("tiny_stage2", measured=tmp_path)
    assert result.seconds_per_step == 2
    assert result.source == f"the median of 40 steps in {tmp_path} on NVIDIA H100 x 1"


@pytest.mark.parametrize("line", ['{"step": 1}', "[1, 2]", '{"seconds": "1"}', '{"seconds": NaN}', '{"seconds": true}'])
def test_a_line_that_is_no_steps_times_is_named(tmp_path, line):
    lines = ['{"step": 1, "seconds": 2, "place": "x"}', '{"step": 2, "sec', line]  # the second was cut by a kill
    (tmp_path / "timings.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"timings.jsonl, line 3: expected a step's times"):
        read_timings(tmp_path)
    (tmp_path / "timings.jsonl").write_text("\n".join(lines[:2]))
    assert [row["seconds"] for row in read_timings(tmp_path)] == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "generate_1_3b"}, "is none of train-vae, cache, train-dit by its options (num_frames, height, "),
        ({"config": "tiny_stage2", "for_command": "generate"}, "there are plans of train-vae, cache, train-dit"),
        ({"config": "tiny_stage2", "overrides": {"training.rank": 3}}, "did you mean adapter.rank?"),
        ({"config": "stage2_dora_1_3b", "overrides": {"device_memory": "24"}}, "device_memory: no option of plan, nor "
         "of a recipe of train-vae, cache, train-dit; did you mean device_memory_gib?"),
        ({"config": "stage2_dora_1_3b", "overrides": {"batchsize": "2"}}, "did you mean training.batch_size?"),
        ({"config": "tiny_stage2", "overrides": {"training.batch_sice": "2"}}, "did you mean training.batch_size?"),
        ({"config": "cache_1_3b", "for_command": "cache", "overrides": {"training.rank": 3}}, "a recipe of cache"),
        ({"config": "stage1_rgba_vae", "overrides": {"adapter.rank": 8}}, "adapter: no such option"),
        ({"config": "cache_1_3b", "seconds_per_step": 3}, "--seconds_per_step: no effect: cache trains nothing"),
        ({"config": "cache_1_3b", "measured": "runs/one"}, "--measured: no effect: cache trains nothing"),
        ({"config": "cache_1_3b", "processes": 2}, "--processes: no effect"),
        ({"config": "stage1_rgba_vae", "processes": 2, "sharded": True}, "--sharded: no effect: train-vae keeps all"),
        ({"config": "tiny_stage2", "overrides": {"model.wan": "mine"}}, "give --model, one of"),
        ({"config": "stage2_dora_14b_80gb", "bucket": "81x480x848", "overrides": {"model.wan": "Wan2.2-TI2V-5B"}},
         "multiples of 32"),
        ({"config": "cache_ti2v_5b", "bucket": "17x272x272"}, "17x272x272: height = 272: with the Wan2.2 VAE"),
        ({"config": "cache_ti2v_5b", "overrides": {"data.height": 272}}, "data.height = 272: with the Wan2.2 VAE"),
        ({"config": "tiny_stage2", "overrides": {"model.expert": "both"}}, "there is one DiT"),
        ({"config": "stage2_dora_a14b_low_80gb", "overrides": {"model.expert": "none"}}, "two experts"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        planned(**options)


def test_what_a_plan_looks_at_itself_is_not_told(given, tmp_path, capsys):  # noqa: F811
    (tmp_path / "recipe.toml").write_text("")
    options = {"output_dir": tmp_path / "out", **given["train-dit"]}
    arguments = ["plan", "--config", str(tmp_path / "recipe.toml"), "--for", "train-dit", "--device", "cpu"]
    arguments += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    assert main([*arguments, "--num_samples", "5000", "--model", "nonsense"]) == 2
    assert "--num_samples, --model: no effect" in capsys.readouterr().err
    assert main([*arguments, "--bucket=9x32x32", "--training.batch_size=2", "--training.gradient_checkpointing"]) == 0
    assert "(batch 2 x" in capsys.readouterr().out


def test_a_run_that_its_device_cannot_hold_is_refused_before_anything_is_loaded(
    given,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    recipe = read_given(given, "train-dit", tmp_path)
    small = Target("cpu", "a small machine", 300_000)
    monkeypatch.setattr(memory_check, "target_of_run", lambda device: small)
    monkeypatch.setattr("wan_alpha.stages.stage2_dit.load_trained_dits", None)  # would be called to load
    told = Advice([("training.gradient_checkpointing = true", 1.0)], [], None)
    monkeypatch.setattr(memory_check, "advise", lambda *given: told)
    peak = plan_dit(recipe, small, Assumptions()).peak
    assert peak > small.memory
    with pytest.raises(ConfigError, match=r"does not fit(.|\n)*gradient_checkpointing = true(.|\n)*ignore_memory_plan"):
        train_dit(recipe)
    assert not (tmp_path / "out" / "checkpoints").exists()
    training = recipe.training.model_copy(update={"ignore_memory_plan": True})
    check_memory(recipe.model_copy(update={"training": training}), plan_dit, 10**15)


def test_a_cache_that_its_device_cannot_hold_is_refused_before_anything_is_loaded(
    given,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    recipe = read_given(given, "cache", tmp_path)
    monkeypatch.setattr(memory_check, "target_of_run", lambda device: Target("cuda", "a small card", 300_000))
    with monkeypatch.context() as patched:
        patched.setattr("wan_alpha.models.rgba_vae.RGBAlphaVAE.from_pretrained", None)  # would be called to load
        with pytest.raises(ConfigError, match=r"does not fit(.|\n)*device = cpu(.|\n)*  ignore_memory_plan = true"):
            build_cache(recipe)
    assert build_cache(recipe.model_copy(update={"ignore_memory_plan": True})).built == 6
    complete = build_cache(recipe)
    assert (complete.built, complete.reused) == (0, 6)
    next((tmp_path / "out" / "items").glob("*.safetensors")).unlink()
    monkeypatch.setattr("wan_alpha.stages.cache_latents.encode_contexts", None)  # would be called to load
    with pytest.raises(ConfigError, match="does not fit"):
        build_cache(recipe)


def test_what_a_cache_surely_takes_no_more_than_needs_no_plan(given, tmp_path, monkeypatch):  # noqa: F811
    recipe = read_given(given, "cache", tmp_path)
    peak = plan_cache(recipe, Target("cuda", "a card", None), Assumptions()).peak
    assert peak < memory_check.cache_estimate(recipe)
    monkeypatch.setattr(memory_check, "target_of_run", lambda device: Target("cuda", "a card", 2**40))
    check_memory(recipe, None, memory_check.cache_estimate(recipe))


def test_a_cache_that_does_not_say_its_clips_sizes_is_planned(given, tmp_path):  # noqa: F811
    recipe = read_given(given, "train-dit", tmp_path)
    cache = LatentCache.open(recipe.cache)
    assert 0 < memory_check.dit_estimate(recipe, cache) < math.inf
    untold = {name: value for name, value in cache.index.preprocessing.items() if name not in ("height", "buckets")}
    index = replace(cache.index, preprocessing=untold)
    assert memory_check.dit_estimate(recipe, replace(cache, index=index)) == math.inf


def test_another_models_cache_is_refused_before_anything_is_loaded(
    given,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    """At sizes that need a plan, too: the plan's step would fail on it."""
    write_dit(tmp_path / "wan22", in_dim=48, out_dim=48)
    write_dit(tmp_path / "wide", text_dim=32)
    monkeypatch.setattr(memory_check, "target_of_run", lambda device: Target("cuda", "a small card", 300_000))
    monkeypatch.setattr("wan_alpha.stages.stage2_dit.load_trained_dits", None)  # would be called to load
    for name, message in {"wan22": "its latents have 16 channels, the DiT takes 48",
                          "wide": "its contexts have 16 channels, the DiT takes 32"}.items():  # fmt: skip
        recipe = read_given(given, "train-dit", tmp_path, **{"model.wan": str(tmp_path / name)})
        for changes in ({}, {"dry_run": True}):
            with pytest.raises(DataError, match=f"{message}; is it another model's cache"):
                train_dit(recipe.model_copy(update=changes))
        with pytest.raises(DataError, match=message):
            plan_dit(recipe, Target("cuda", "a card", None), Assumptions(True, Bucket(5, 32, 32)))


def test_a_size_off_the_models_grid_is_refused_beside_a_cache(given, tmp_path):  # noqa: F811
    recipe = read_given(given, "train-dit", tmp_path)
    with pytest.raises(ConfigError, match="5x24x32: height = 24: with the Wan2.1 VAE sizes are multiples of 16"):
        plan_dit(recipe, Target("cpu", "a CPU", None), Assumptions(True, Bucket(5, 24, 32)))


def read_given(given, command, folder, **changes):  # noqa: F811
    (folder / "empty.toml").write_text("")
    options = {**given[command], "output_dir": folder / "out", "model.wan": str(given[command]["model.wan"])}
    options |= changes
    return read_planned_recipe(folder / "empty.toml", command, options)[1]
