"""``wan-alpha perf compare``: what became slower or hungrier beyond noise, and what did not."""

import json
import mmap
import random
import sys

import pytest
import torch

from wan_alpha.cli.main import main
from wan_alpha.cli.perf import compare_records
from wan_alpha.errors import DataError
from wan_alpha.training import peak_memory
from wan_alpha.training.peak_memory import DRIVER_AT_END, PROCESS_AT_END, PROCESS_PEAK, Peak, peak_within
from wan_alpha.training.performance import PerformanceRecord, measured, note_stage, recording, span_of_memory
from wan_alpha.training.performance_file import FORMAT, read_performance

GIB = 2**30


def record(seconds=0.1, noise=0.01, times=60, memory=GIB, seed=0, stage="step", count=2, what=PROCESS_PEAK, **hardware):
    """The content of a record with one stage of times drawn around ``seconds`` for two units."""
    draw, made = random.Random(seed), PerformanceRecord("train-dit", ".")
    for _ in range(times):
        made.add(stage, draw.gauss(seconds, noise) * count / 2, count, "samples", Peak("cpu", what, int(memory)))
    places = {"accelerator": "a card", "torch": "2", **hardware}
    stages = {name: one.as_dict() for name, one in made.stages.items()}
    return {"format": FORMAT, "command": "train-dit", "hardware": places, "stages": stages}


@pytest.mark.parametrize(
    ("after", "time", "memory"),
    [
        ({}, "same", "same"),
        ({"seed": 5}, "same", "same"),
        ({"seconds": 0.105}, "same", "same"),  # below the bar
        ({"seconds": 0.13}, "worse", "same"),
        ({"seconds": 0.07}, "better", "same"),
        ({"seconds": 0.13, "noise": 0.2, "seed": 1}, "same", "same"),  # above the bar, within noise
        ({"memory": 1.2 * GIB}, "same", "worse"),
        ({"memory": 1.04 * GIB}, "same", "same"),
        ({"memory": 0.8 * GIB}, "same", "better"),
        ({"memory": 2 * GIB, "what": PROCESS_AT_END}, "same", "same"),  # no peak beside a peak says nothing
        ({"seconds": 0.13, "times": 3, "noise": 0.0}, "same", "same"),  # few times: the higher bar
        ({"seconds": 0.16, "times": 3, "noise": 0.0}, "worse", "same"),
        ({"count": 20}, "same", "same"),  # ten times the work in ten times the time
        ({"count": 1, "seconds": 0.16}, "worse", "same"),  # half the work, in less time, and yet slower
    ],
)
def test_what_is_beyond_noise_is_named(after, time, memory):
    found = compare_records(record(), record(**after))
    (change,) = found.changes
    assert (change.time, change.memory) == (time, memory)
    assert found.passed == ("worse" not in (time, memory)) and found.hardware == []


def test_two_draws_of_one_spread_hardly_ever_differ():
    found = [compare_records(record(noise=0.04, seed=n), record(noise=0.04, seed=1000 + n)).passed for n in range(200)]
    assert sum(found) >= 198


def test_the_first_time_does_not_count_among_many():
    made = PerformanceRecord("cache", ".")
    for seconds in (9.0, 1.0, 1.0, 1.0):
        made.add("encode", seconds, 3, "clips", Peak("cpu", PROCESS_PEAK, 5))
    stage = made.stages["encode"].as_dict()
    assert (stage["first_seconds"], stage["median_seconds"], stage["samples"], stage["times"]) == (9.0, 1.0, 3, 4)
    assert stage["per_second"] == 1.0 and stage["memory_bytes"] == 5 and stage["unit"] == "clips"


def test_nothing_is_measured_without_a_record(tmp_path):
    with measured("load"):
        note_stage("step", 1.0)
    with recording("cache", tmp_path), measured("load"):  # all was there already: the record of the work stays
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_and_its_code_says(tmp_path, capsys):
    for name, content in (("a", record()), ("b", record(seconds=0.2, accelerator="another card"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "performance.json").write_text(json.dumps(content))
    a, b = str(tmp_path / "a"), str(tmp_path / "b" / "performance.json")
    assert main(["perf", "compare", a, a]) == 0
    assert "nothing became slower or hungrier" in capsys.readouterr().out
    assert main(["perf", "compare", a, b]) == 1
    printed = capsys.readouterr().out
    assert "step is slower" in printed and "differs: accelerator: a card in A, another card in B" in printed
    assert main(["perf", "compare", a, b, "--bar", "1.5"]) == 0
    capsys.readouterr()
    assert main(["perf", "compare", a, b, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["changes"][0]["time"] == "worse" and not found["passed"]


def test_a_time_of_less_work_counts_as_such():
    made = PerformanceRecord("generate", ".")
    for seconds, frames in ((5.0, 1), (1.0, 1), (4.0, 4), (4.0, 4)):  # chunks of a clip, the first one short
        made.add("decode", seconds, frames, "frames")
    stage = made.stages["decode"].as_dict()
    assert (stage["seconds_per_unit"], stage["deviation_per_unit"], stage["median_seconds"]) == (1.0, 0.0, 4.0)


def spend(mib):
    """Touch that much memory and give it back."""
    mapped = mmap.mmap(-1, mib << 20)
    mapped.write(b"1" * (mib << 20))
    mapped.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no system tells a span's peak")
def test_a_stage_has_the_peak_of_its_own_time(tmp_path):
    with recording("cache", tmp_path) as record:
        with measured("before"):
            pass
        with measured("outer"):
            with measured("inner"):
                spend(96)
            with measured("last"):
                spend(1)
        with measured("after"):
            pass
    memory = {name: stage.memory >> 20 for name, stage in record.stages.items()}
    assert all(memory[name] > memory["before"] + 80 for name in ("outer", "inner")), memory
    assert all(memory[name] < memory["before"] + 40 for name in ("last", "after")), memory
    assert {stage.memory_is for stage in record.stages.values()} == {PROCESS_PEAK}


def test_where_no_peak_is_told_it_is_said(monkeypatch):
    monkeypatch.setattr(peak_memory, "_counts_process_peaks", lambda: False)
    with peak_within(None) as found:
        pass
    assert found.what == PROCESS_AT_END and found.bytes > 1 << 20
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 7)
    with peak_within(torch.device("mps")) as found:
        pass
    assert (found.what, found.bytes) == (DRIVER_AT_END, 7)


def test_without_a_record_the_systems_count_is_left_alone(monkeypatch):
    monkeypatch.setattr(peak_memory, "_reset", None)  # would be called to reset
    with span_of_memory(torch.device("cpu")) as found:
        pass
    assert found.bytes > 1 << 20


def test_records_without_a_stage_in_common_are_refused():
    with pytest.raises(DataError, match="no stage in common.*A is of train-dit and has step; B .* has sample"):
        compare_records(record(), record(stage="sample"))
    other = record()
    other["stages"]["step"]["unit"] = "clips"
    with pytest.raises(DataError, match="no stage in common"):
        compare_records(record(), other)


def test_another_command_is_not_told_as_another_machine(tmp_path, capsys):
    for name, command in (("a", "train-dit"), ("b", "train-vae")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "performance.json").write_text(json.dumps(record() | {"command": command}))
    assert main(["perf", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert "differs: the command: train-dit in A, train-vae in B" in printed and "one machine" not in printed


@pytest.mark.parametrize("field", ["hardware", "command", "stages", "stages.step.seconds_per_unit", "stages.step.unit"])
def test_a_field_that_is_missing_is_named(tmp_path, field):
    content = record()
    *tables, leaf = field.split(".")
    table = content
    for name in tables:
        table = table[name]
    del table[leaf]
    (tmp_path / "performance.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"performance.json: {field}: Field required"):
        read_performance(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 1, "stages": {}}'])
def test_what_is_no_record_is_refused(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "performance.json").write_text(content)
    assert main(["perf", "compare", str(tmp_path), str(tmp_path)]) == 2
    assert "performance" in capsys.readouterr().err
