"""Checkpoints on the disk: whole or not there, whatever fails, and never taken for whole when damaged."""

import errno
import itertools
import json
import os
import random
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from file_faults import Faults, contents, leftovers
from processes import run_alone

from wan_alpha.errors import CheckpointError
from wan_alpha.training import checkpoint_folder, durable
from wan_alpha.training.checkpoint_folder import (
    Keep,
    find_newest,
    find_problem,
    list_checkpoints,
    step_of,
    write_checkpoint,
)

Usage = namedtuple("Usage", "total used free")


def write(folder, step, keep=None, **options):
    return write_checkpoint(folder, step, contents(step), {"mark": step}, keep or Keep(newest=2), **options)


def steps(folder):
    return [step_of(path) for path in list_checkpoints(folder)]


def test_what_is_written_is_found(tmp_path):
    final = write(tmp_path / "new" / "folder", 7)
    found = find_newest(tmp_path / "new" / "folder")
    assert (found.checkpoint, found.damaged) == (final, [])
    assert found.state == {"format_version": 3, "step": 7, "mark": 7}
    assert (final / "model.bin").read_bytes() == b"00000007" * 300
    assert leftovers(tmp_path / "new" / "folder") == []


def test_nothing_there(tmp_path):
    assert find_newest(tmp_path / "absent").checkpoint is None
    assert find_newest(tmp_path).checkpoint is None


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(newest=1), [9]),
        (Keep(newest=3), [7, 8, 9]),
        (Keep(newest=1, every=4), [4, 8, 9]),
        (Keep(newest=1, best=2), [2, 9]),
        (Keep(newest=2, every=3, best=5), [3, 5, 6, 8, 9]),
    ],
)
def test_what_is_kept(tmp_path, keep, kept):
    for step in range(1, 10):
        write(tmp_path, step, keep)
    assert steps(tmp_path) == kept and leftovers(tmp_path) == []


def test_the_old_one_goes_only_when_the_new_one_is_verified(tmp_path, monkeypatch):
    write(tmp_path, 1, Keep(newest=1))
    original = durable._write_all

    def fault_of_the_disk(handle, piece):
        """What is written differs from what was meant, by a bit."""
        original(handle, bytes([piece[0] ^ 1]) + bytes(piece[1:]))

    with monkeypatch.context() as patch:
        patch.setattr(durable, "_write_all", fault_of_the_disk)
        with pytest.raises(CheckpointError, match="step_00000002: was written but reads back damaged"):
            write(tmp_path, 2, Keep(newest=1))
    assert find_newest(tmp_path).state["step"] == 1


def test_a_damaged_newest_is_named_and_set_aside(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step, Keep(newest=3))
    (tmp_path / "step_00000003" / "model.bin").unlink()
    with open(tmp_path / "step_00000002" / "optimizer.bin", "ab") as file:
        file.write(b"x")
    found = find_newest(tmp_path)
    assert found.state["step"] == 1
    assert found.damaged == [
        ("step_00000003", "model.bin is missing", "step_00000003.damaged"),
        ("step_00000002", "optimizer.bin has 2401 bytes, 2400 were written", "step_00000002.damaged"),
    ]
    assert steps(tmp_path) == [1] and (tmp_path / "step_00000003.damaged" / "optimizer.bin").is_file()
    write(tmp_path, 3)
    (tmp_path / "step_00000003" / "model.bin").write_bytes(b"")
    assert find_newest(tmp_path).damaged[0][2] == "step_00000003.damaged_2"


def test_none_is_whole(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "step_00000001" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole \(step_00000001: state.json has 2 bytes.*anew"):
        find_newest(tmp_path)
    assert find_newest(tmp_path).checkpoint is None  # the same command again begins anew


def test_what_dead_processes_left_is_removed(tmp_path):
    write(tmp_path, 1)
    (tmp_path / ".step_00000002.partial").mkdir()
    shutil.copytree(tmp_path / "step_00000001", tmp_path / ".step_00000000.deleted")
    found = find_newest(tmp_path)
    assert found.state["step"] == 1 and found.damaged == []
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_a_process_that_died_before_the_marker_left_a_whole_checkpoint(tmp_path):
    for step in (1, 2):
        write(tmp_path, step)
    whole = sorted(path.name for path in (tmp_path / "step_00000002").iterdir())
    (tmp_path / "step_00000002" / "complete.json").rename(tmp_path / "step_00000002" / ".complete.json.partial")
    found = find_newest(tmp_path)
    assert found.state["step"] == 2 and found.damaged == [] and find_problem(found.checkpoint) is None
    assert sorted(path.name for path in found.checkpoint.iterdir()) == whole


def test_checkpoints_that_a_copy_left_the_markers_of_are_used(tmp_path):
    for step in (1, 2):
        (write(tmp_path, step) / "complete.json").unlink()
    (tmp_path / "step_00000002" / "model.bin").write_bytes(b"cut")
    found = find_newest(tmp_path)
    assert found.state["step"] == 1 and leftovers(tmp_path) == ["step_00000002.damaged"]
    problem = "complete.json is missing, and model.bin has 3 bytes, 2400 were written"
    assert found.damaged == [("step_00000002", problem, "step_00000002.damaged")]


def test_without_marker_and_checksums_a_checkpoint_is_set_aside_and_not_deleted(tmp_path):
    """As a process of the version before left it that died between the two, or a copy without either."""
    for folder in [write(tmp_path, step) for step in (1, 2)]:
        for name in ("complete.json", "checksums.json"):
            (folder / name).unlink()
    with pytest.raises(
        CheckpointError, match=r"step_00000002: complete.json is missing, now step_00000002.damaged; .*"
    ):
        find_newest(tmp_path)
    assert leftovers(tmp_path) == ["step_00000001.damaged", "step_00000002.damaged"]
    assert all((tmp_path / name / "model.bin").is_file() for name in leftovers(tmp_path))


def test_a_checkpoint_of_the_version_before_without_checksums_is_whole(tmp_path):
    (write(tmp_path, 1) / "checksums.json").unlink()
    assert find_newest(tmp_path).state["step"] == 1


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_unmarked_folder_is_not_in_the_way_of_its_step(tmp_path, is_whole):
    folder = write(tmp_path, 1)
    (folder / "complete.json").unlink()
    if not is_whole:
        (folder / "model.bin").unlink()
    assert find_problem(write(tmp_path, 1)) is None
    assert leftovers(tmp_path) == [] if is_whole else leftovers(tmp_path) == ["step_00000001.damaged"]


def test_checkpoints_of_the_version_before_are_read(tmp_path):
    folder = tmp_path / "step_00000004"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"12345")
    state = {"format_version": 2, "step": 4, "epoch": 1, "files": {"model.bin": 5}}
    (folder / "state.json").write_text(json.dumps(state))
    assert find_newest(tmp_path).state == state
    write(tmp_path, 5, Keep(newest=1))
    assert steps(tmp_path) == [5]
    shutil.rmtree(tmp_path / "step_00000005")
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"1234")
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="model.bin is cut short"):
        find_newest(tmp_path)


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    write(tmp_path, 1, Keep(newest=1))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 5000))
    monkeypatch.setattr(checkpoint_folder, "write_file", lambda *args: pytest.fail("began to write"))
    with pytest.raises(CheckpointError, match=r"no room for a checkpoint: 48\d\d bytes needed, 5000 bytes free"):
        write(tmp_path, 2, Keep(newest=1))
    assert find_newest(tmp_path).state["step"] == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_meanwhile_leaves_the_previous(tmp_path, monkeypatch, code):
    write(tmp_path, 1, Keep(newest=1))

    def fail(name):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 17))
        raise OSError(code, "full")

    written = itertools.count()
    original = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *args: original(*args) if next(written) < 4 else fail("write"))
        with pytest.raises(CheckpointError, match=r"48\d\d bytes needed, 17 bytes free; the checkpoints .* stay"):
            write(tmp_path, 2, Keep(newest=1))
    assert steps(tmp_path) == [1] and leftovers(tmp_path) == []


def fail_as_a_broken_disk(name):
    raise OSError(errno.EIO, f"{name} failed")


def test_whichever_file_operation_fails_a_whole_checkpoint_remains(tmp_path):
    """N = 1, 2, ... until a save needs fewer operations than that."""
    failed = 0
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        write(folder, 1, Keep(newest=1))
        (folder / ".step_00000002.partial").mkdir()  # something to clean up, which may fail too
        with Faults(number, fail_as_a_broken_disk).injected() as faults:
            try:
                write(folder, 2, Keep(newest=1))
                is_saved = True
            except CheckpointError as error:
                # Where the clean-up failed, what was to be cleaned is in the way.
                assert any(words in str(error) for words in ("failed", "cannot be read", "File exists")), error
                is_saved, failed = False, failed + 1
        assert any(find_problem(path) is None for path in list_checkpoints(folder)), number
        found = find_newest(folder)
        assert found.state["step"] == 2 if is_saved else found.state["step"] in (1, 2), number
        assert [name for name in leftovers(folder) if not name.endswith(".damaged")] == [], number
        if faults.count < number:
            break
    assert is_saved and failed >= 30


@pytest.mark.parametrize("kind", ["flip", "truncation"])
def test_no_flipped_bit_and_no_truncation_passes(tmp_path, kind):
    """250 of each, over all files in turn, the marker and the state among them."""
    checkpoint = write(tmp_path, 3)
    generator, files = random.Random(kind), sorted(checkpoint.iterdir())
    assert {path.name for path in files} == {
        "model.bin", "optimizer.bin", "state.json", "checksums.json", "complete.json",
    }  # fmt: skip
    for number in range(250):
        path = files[number % len(files)]
        content = path.read_bytes()
        if kind == "flip":
            at, bit = generator.randrange(len(content)), generator.randrange(8)
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        else:
            path.write_bytes(content[: generator.randrange(len(content))])
        problem = find_problem(checkpoint)
        assert problem is not None and path.name in problem
        path.write_bytes(content)
    assert find_problem(checkpoint) is None


def test_every_bit_of_the_marker_counts(tmp_path):
    checkpoint = write(tmp_path, 3)
    marker = checkpoint / "complete.json"
    content = marker.read_bytes()
    for at, bit in itertools.product(range(len(content)), range(8)):
        marker.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        assert find_problem(checkpoint) is not None, (at, bit)


def test_a_cancelled_save_leaves_nothing(tmp_path):
    write(tmp_path, 1)
    asked = itertools.count()
    with pytest.raises(durable.SaveCancelled):
        write(tmp_path, 2, is_cancelled=lambda: next(asked) == 4)
    assert steps(tmp_path) == [1] and leftovers(tmp_path) == []


def test_the_log_is_flushed_before_the_checkpoint_counts_its_lines(tmp_path, monkeypatch):
    log, flushed = tmp_path / "metrics.jsonl", []
    log.write_text("{}\n")
    original = durable.flush

    def record(path):
        flushed.append((Path(path).name, [path.name for path in (tmp_path / "c").glob("step_*")]))
        original(path)

    monkeypatch.setattr(checkpoint_folder, "flush", record)
    write(tmp_path / "c", 1, flush_before=[log])
    assert flushed[0] == ("metrics.jsonl", [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills need fork")
def test_killed_savers_leave_what_was_saved_and_nothing_stale(tmp_path):
    """kill -9 at 100 random instants, and at every single file operation of a save."""
    result = json.loads(run_alone(Path(__file__).with_name("kill_saver.py"), tmp_path))
    assert result["random"]["wrong"] == [] and result["every"]["wrong"] == []
    # The kills did hit saves in the middle.
    assert result["random"]["interrupted"] >= 20 and result["random"]["saved"] >= 50
    assert result["every"]["operations"] >= 30 and result["every"]["interrupted"] >= 20
