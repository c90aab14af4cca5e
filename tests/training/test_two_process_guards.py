"""Two processes act as one: on a number that is not finite, on a signal, on a disk that fails, on a folder in use."""

import json
import socket
from collections import Counter

import pytest
import torch
from durable_toy import everything

from wan_alpha.training.device import WAIT_FOR_OTHERS
from wan_alpha.training.run_folder import read_metrics
from wan_alpha.weights.io import load_state_dict


@pytest.fixture(scope="module")
def seen(two_processes):
    return [json.loads((two_processes / f"seen.{rank}.json").read_text()) for rank in (0, 1)]


def test_a_bad_number_on_one_rank_skips_the_update_everywhere(two_processes, seen):
    for rank in (0, 1):
        code, hashes = seen[rank]["nan"]
        assert code == 0
        # Calls 3 and 5 were bad: the weights before the next step are those before the bad one, to the byte.
        same = [number for number in range(1, len(hashes)) if hashes[number] == hashes[number - 1]]
        assert same == [3, 5]
    assert seen[0]["nan"] == seen[1]["nan"] and seen[0]["straight"] == seen[1]["straight"]
    rows = read_metrics(two_processes / "nan")
    assert rows[-1]["skipped_updates"] == 2 and [row["step"] for row in rows if row["loss"] is None] == [3, 5]
    before, after = (two_processes / "nan" / "checkpoints" / f"step_0000000{step}" for step in (2, 3))
    for name in ("model", "optimizer", "ema"):
        ours, theirs = (load_state_dict(path / f"{name}.safetensors") for path in (after, before))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_too_many_end_the_run_everywhere(seen):
    assert [rank["fatal"] for rank in seen] == [[2, 6], [2, 6]]  # exit code, calls


@pytest.mark.parametrize("run", ["stopped0", "stopped2"])
def test_a_signal_to_one_rank_stops_all_and_the_rest_is_the_same_run(two_processes, seen, run):
    assert [rank[run] for rank in seen] == [[75] * 5 + [0]] * 2
    assert everything(two_processes / run) == everything(two_processes / "straight")


@pytest.mark.parametrize("run", ["stopped0", "stopped2"])
def test_every_sample_is_seen_once_over_five_interruptions(seen, run):
    """With 0 and 2 loading processes. Each epoch's last step leaves one rank without a sample; it repeats one, with
    weight 0."""
    interrupted, straight = (Counter(seen[0][name] + seen[1][name]) for name in (f"{run} samples", "straight samples"))
    assert interrupted == straight
    assert sorted(straight.values()) == [1] * 12 + [2] * 2


@pytest.mark.parametrize("what", ["unsaved", "locked"])
def test_what_the_first_process_cannot_do_ends_all(seen, what):
    assert [rank[what] for rank in seen] == [2, 2]


def test_the_others_wait_for_hours_while_the_first_process_validates_or_saves(seen):
    assert [rank["timeout"] for rank in seen] == pytest.approx([WAIT_FOR_OTHERS.total_seconds()] * 2, rel=1e-3)
    assert WAIT_FOR_OTHERS.total_seconds() >= 6 * 3600


def test_an_output_folder_that_one_machine_does_not_see_is_refused_at_once(two_processes, seen):
    for code, said in (rank["apart"] for rank in seen):
        assert code == 2
        assert "output_dir must be one folder which all machines see" in said
        assert f"process 1 on {socket.gethostname()} ({two_processes / 'elsewhere'}) cannot see" in said
    assert not (two_processes / "apart" / "metrics.jsonl").exists()
