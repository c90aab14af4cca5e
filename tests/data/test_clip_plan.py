"""What a run takes and what it leaves out, as it says at its start, and as its samples then are."""

import json
import pickle
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from wan_alpha.data.buckets import Bucket, parse_bucket
from wan_alpha.data.clip_plan import plan_clips
from wan_alpha.data.dataset import RGBAVideoDataset, collate
from wan_alpha.data.operators import LoadRGBAVideoPair
from wan_alpha.errors import DataError
from wan_alpha.media.write import LosslessWriter
from wan_alpha.training.config import TrainingSettings
from wan_alpha.training.loading import load_batches
from wan_alpha.training.order import SampleOrder, micro_batches

BUCKETS = [parse_bucket(text) for text in ("5x32x32", "9x32x32", "9x32x64")]


@dataclass(frozen=True)
class Source:
    """As a recipe's DatasetSettings."""

    base_path: Path
    repeat: int = 1
    weight: float | None = None

    @property
    def manifest(self):
        return self.base_path / "metadata.jsonl"


def listed(folder, shapes, kind="video"):
    """A dataset whose list says the sizes of files that are empty: a plan must not open them."""
    folder.mkdir(parents=True)
    records = []
    for number, (frames, height, width) in enumerate(shapes):
        (folder / f"{number}.mov").touch()
        records.append({"video": f"{number}.mov", "num_frames": frames, "height": height, "width": width, "type": kind})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    return Source(folder)


SHAPES = [(20, 32, 64), (9, 64, 64), (6, 32, 32), (3, 32, 32), (1, 40, 40), (12, 30, 70), (9, 32, 33)]
EXPECTED = ["9x32x64", "9x32x32", "5x32x32", "5x32x32", "5x32x32", "9x32x64", "9x32x32"]


def test_every_clip_has_its_bucket_and_the_table_says_so(tmp_path):
    plan = plan_clips([listed(tmp_path / "a", SHAPES)], BUCKETS)
    assert [str(shape) for shape in plan.shapes] == EXPECTED and len(plan.rows) == 7 and not plan.left_out
    assert [line.split() for line in plan.summary.splitlines()] == [
        ["bucket", "(frames", "x", "height", "x", "width)", "clips", "longer", "shorter"],
        ["5x32x32", "3", "1", "2"],
        ["9x32x32", "2", "0", "0"],
        ["9x32x64", "2", "2", "0"],
        ["left", "out:", "nothing"],
    ]


def test_without_ping_pong_short_clips_are_left_out_and_listed(tmp_path):
    plan = plan_clips([listed(tmp_path / "a", SHAPES)], BUCKETS, ping_pong=False)
    assert [str(shape) for shape in plan.shapes] == [*EXPECTED[:3], *EXPECTED[4:]]  # the still stays: it is panned over
    ((name, row, why),) = plan.left_out
    assert row.index == 4 and why == "3 frames, the least bucket has 5, and ping_pong is off"
    assert f"left out: 1 clips\n  {name}, row 4 (3.mov): {why}" in plan.summary


def test_many_left_out_are_counted(tmp_path):
    plan = plan_clips([listed(tmp_path / "a", [(3, 32, 32)] * 25 + [(9, 32, 32)])], BUCKETS, ping_pong=False)
    assert "left out: 25 clips" in plan.summary and plan.summary.endswith("  and 5 more")
    with pytest.raises(
        DataError, match=r"metadata.jsonl: no clip is left: 3 frames, the least bucket has 5.*of 2 rows"
    ):
        plan_clips([listed(tmp_path / "b", [(3, 32, 32)] * 2)], BUCKETS, ping_pong=False)


def test_one_size_needs_no_look_at_the_files(tmp_path):
    source = listed(tmp_path / "a", SHAPES)
    plan = plan_clips([source], BUCKETS[1:2])
    assert {str(shape) for shape in plan.shapes} == {"9x32x32"}
    assert plan.summary.splitlines()[1].split() == ["9x32x32", "7", "2", "3"]
    source.manifest.write_text('{"video": "0.mov"}')
    summary = plan_clips([source], BUCKETS[1:2]).summary
    assert summary.splitlines()[1].split() == ["9x32x32", "1", "not", "read", "not", "read"]
    assert "the length of 1 clips" in summary and "wan-alpha doctor" in summary, "why, and where to learn it"
    lines = source.manifest.read_text() + '\n{"video": "0.mov", "num_frames": 20, "height": 32, "width": 64}'
    source.manifest.write_text(lines)
    found = plan_clips([source], BUCKETS[1:2]).summary.splitlines()[1]
    assert found.split() == ["9x32x32", "2", "1", "or", "more", "not", "read"]


def test_several_datasets_make_one_plan(tmp_path):
    sources = [listed(tmp_path / "a", SHAPES[:4]), listed(tmp_path / "b", SHAPES[4:])]
    plan = plan_clips([Source(sources[0].base_path, 2, 1.0), Source(sources[1].base_path, 1, 3.0)], BUCKETS)
    assert [str(shape) for shape in plan.shapes] == EXPECTED
    assert plan.mixture.samples == [8, 24]
    assert "25.0%" in plan.summary and "75.0%" in plan.summary


@pytest.fixture(scope="module")
def real_clips(tmp_path_factory):
    """Clips of 12, 7 and 3 frames; the list says nothing of their sizes."""
    folder, generator, records = tmp_path_factory.mktemp("real"), np.random.default_rng(0), []
    for number, (frames, height, width) in enumerate([(12, 32, 64), (7, 40, 40), (3, 32, 32)]):
        clip = generator.integers(0, 256, (frames, height, width, 4), np.uint8)
        for name, stream in ((f"{number}_rgb.mkv", "rgb"), (f"{number}_alpha.mkv", "matte")):
            with LosslessWriter(folder / name, 16, stream) as writer:
                writer.write(clip)
        records.append({"video": f"{number}_rgb.mkv", "prompt": ["one", "two"]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    return Source(folder)


def test_sizes_that_no_list_says_are_looked_at(real_clips):
    told = []
    plan = plan_clips([real_clips], BUCKETS, progress=lambda done, total: told.append((done, total)))
    assert [str(shape) for shape in plan.shapes] == ["9x32x64", "5x32x32", "5x32x32"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    # At half the rate 12 frames are 6, 7 are 3, 3 are 1: which is not a still.
    slow = plan_clips([real_clips], BUCKETS, target_fps=8.0, ping_pong=False)
    assert [(row.index, str(shape)) for row, shape in zip(slow.rows, slow.shapes, strict=True)] == [(1, "5x32x32")]
    assert [why.split(",")[0] for _, _, why in slow.left_out] == ["3 frames", "1 frames"]


def test_samples_have_their_buckets_shape_and_batch_with_their_like(real_clips):
    plan = plan_clips([real_clips], BUCKETS)
    dataset = RGBAVideoDataset(
        plan.rows, LoadRGBAVideoPair(num_frames=17), seed=1, mixture=plan.mixture, shapes=plan.shapes
    )
    samples = [dataset[index] for index in range(3)]
    assert [tuple(sample["rgb"].shape) for sample in samples] == [(3, 9, 32, 64), (3, 5, 32, 32), (3, 5, 32, 32)]
    assert [dataset.group_of(index) for index in range(3)] == plan.shapes
    assert collate(samples[1:])["alpha"].shape == (2, 1, 5, 32, 32)
    assert {sample["prompt"] for sample in samples} <= {"one", "two"}
    copy = pickle.loads(pickle.dumps(dataset))  # what spawned workers are given
    assert torch.equal(copy[2]["rgb"], samples[2]["rgb"]) and copy[2]["sample_seed"] == samples[2]["sample_seed"]


def test_a_list_that_is_wrong_is_found_out(real_clips):
    (row, *_) = plan_clips([real_clips], BUCKETS).rows
    wrong = type(row)(row.index, row.foreground, row.matte, listed_shape=(40, 32, 64))
    dataset = RGBAVideoDataset([wrong], LoadRGBAVideoPair(), shapes=[Bucket(9, 32, 64)])
    with pytest.raises(DataError, match=r"row 1 \(0_rgb.mkv\): the manifest says 40x32x64 .* file has 12x32x64"):
        dataset[0]
    short = LoadRGBAVideoPair(num_frames=17, height=32, width=32, ping_pong=False)
    with pytest.raises(DataError, match="12 frames are too few for 17, and ping_pong is off"):
        short({"row": row, "sample_seed": 0})


class Told:
    """Stands in for the operator: a sample is what it was asked for."""

    def __call__(self, data):
        return data["row"].foreground, str(data["shape"]), data["sample_seed"]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_of_buckets_and_weights_is_seen_exactly_once(tmp_path, num_workers, world_size):
    """And what each sample sees is the same for any number of workers and processes."""
    sources = [listed(tmp_path / "a", SHAPES), listed(tmp_path / "b", SHAPES * 2)]
    plan = plan_clips([Source(sources[0].base_path, 2, 2.0), Source(sources[1].base_path, 1, 1.0)], BUCKETS)
    settings = TrainingSettings(num_epochs=1, batch_size=2, num_workers=num_workers)

    def made():
        return RGBAVideoDataset(plan.rows, Told(), seed=5, mixture=plan.mixture, shapes=plan.shapes)

    order = SampleOrder(made(), seed=5)
    num_steps = -(-order.epoch_length // (2 * world_size))
    seen = []
    for rank in range(world_size):
        steps = islice(order.steps(0, [], 2 * world_size), num_steps)
        shares = [micro_batches(step.samples, rank, world_size, 2, order.group_of) for step in steps]
        batches = load_batches(made(), ((0, share) for share in shares), list, settings, torch.device("cpu"))
        for part, batch in zip((part for share in shares for part in share), batches, strict=True):
            assert len({shape for _, shape, _ in batch}) == 1
            seen += batch if part.weight else []
    alone = made()
    assert sorted(seen) == sorted(alone[index] for index in alone.epoch_samples(0))
    assert len(set(seen)) == len(seen) == sum(plan.mixture.samples) == 42
    assert min(Counter(path for path, _, _ in seen).values()) >= 1
    assert len({path for path, _, _ in seen}) == 21
