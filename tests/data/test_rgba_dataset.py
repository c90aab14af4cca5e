import dataclasses
import shutil

import pytest
import torch
from torch.utils.data import DataLoader

from wan_alpha.data.buckets import Bucket
from wan_alpha.data.dataset import RGBAVideoDataset, collate
from wan_alpha.data.manifest import Row
from wan_alpha.data.operators import HardRenderRGBA, LoadRGBAVideoPair, SoftRenderRGBA
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.write import LosslessWriter


@pytest.fixture
def rows(tmp_path, clip, write_pair):
    with LosslessWriter(tmp_path / "owl.mkv") as writer:
        writer.write(clip[:3])
    fox = write_pair(tmp_path, "fox", clip)
    return [Row(1, *fox, prompt="a fox"), Row(2, tmp_path / "owl.mkv", prompt="an owl")]


def dataset(rows, seed=0, repeat=3, **options):
    load = LoadRGBAVideoPair(num_frames=5, height=16, width=24, augment=True, mode="random", **options)
    return RGBAVideoDataset(rows, load >> HardRenderRGBA() >> SoftRenderRGBA(), repeat, seed)


def same(one, other):
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def test_samples_depend_on_seed_epoch_and_index_alone(rows):
    data, again, cached = dataset(rows), dataset(rows), dataset(rows, cache_clips=True)
    assert len(data) == 6
    first = [data[i] for i in range(6)]
    assert [sample["prompt"] for sample in first] == ["a fox", "an owl"] * 3
    for i in (4, 1, 5, 0):  # in another order, from another object, from memory
        assert same(again[i], first[i]) and same(cached[i], first[i])
    assert not same(first[0], first[2])  # repeats of a row differ
    data.set_epoch(1)
    assert not same(data[0], first[0])
    data.set_epoch(0)
    assert same(data[0], first[0])
    assert not same(dataset(rows, seed=1)[0], first[0])


def test_a_sample_knows_where_it_is_from(rows):
    sample = dataset(rows)[3]
    assert sample["row"] == 2 and sample["source"].endswith("owl.mkv")
    assert {"rgb", "alpha", "hard", "soft", "hard_background", "soft_background"} <= sample.keys()


def test_the_end_is_an_end(rows):
    data = dataset(rows)
    with pytest.raises(IndexError):
        data[6]
    assert sum(1 for _ in data) == 6


def test_a_bad_file_stops_with_its_row_and_is_not_replaced(rows):
    rows[1].foreground.write_bytes(b"not a video")
    data = dataset(rows)
    assert data[0]["prompt"] == "a fox"
    with pytest.raises(DataError, match=r"row 2 \(owl.mkv\): .*owl.mkv: not a video"):
        data[1]


def test_a_sample_of_an_epoch_is_that_whichever_was_chosen_since(rows):
    """Workers that are an epoch apart share what `set_epoch` sets."""
    data, other = dataset(rows), dataset(rows)
    other.set_epoch(2)
    data.set_epoch(7)
    assert same(data.sample(2, 1), other[1]) and not same(data[1], other[1])


def test_workers_that_live_on_follow_the_epoch(rows):
    data = dataset(rows, repeat=1)
    loader = DataLoader(data, batch_size=2, num_workers=1, persistent_workers=True, collate_fn=collate)
    for epoch in (0, 5):
        data.set_epoch(epoch)
        (batch,) = loader
        assert batch["rgb"].shape == (2, 3, 5, 16, 24) and batch["hard_background"].shape == (2, 3)
        assert batch["prompt"] == ["a fox", "an owl"]
        assert torch.equal(batch["rgb"][1], data[1]["rgb"])
        assert torch.equal(batch["row"], torch.tensor([1, 2]))


def test_collate_refuses_other_shapes():
    with pytest.raises(DataError, match="rgb: samples of one batch must have one shape"):
        collate([{"rgb": torch.zeros(3, 1, 8, 8)}, {"rgb": torch.zeros(3, 1, 8, 4)}])


@pytest.mark.parametrize("arguments", [{"rows": []}, {"repeat": 0}])
def test_wrong_options_are_refused(rows, arguments):
    with pytest.raises(ConfigError):
        RGBAVideoDataset(**{"rows": rows, "operator": dict, **arguments})


def test_the_fingerprint_is_that_of_the_rows(rows, tmp_path):
    before = dataset(rows).fingerprint()
    elsewhere = shutil.copytree(tmp_path, tmp_path / "elsewhere")
    moved = [
        dataclasses.replace(
            row, foreground=elsewhere / row.foreground.name, matte=row.matte and elsewhere / row.matte.name,
        )
        for row in rows
    ]  # fmt: skip
    assert dataset(rows, seed=1, repeat=2).fingerprint() == dataset(moved).fingerprint() == before
    other_caption = [dataclasses.replace(rows[0], prompt="a dog"), rows[1]]
    for other in (rows[:1], rows[::-1], other_caption, [rows[0], dataclasses.replace(rows[1], kind="static")]):
        assert dataset(other).fingerprint()["clips"] != before["clips"]


def test_clips_that_were_cut_anew_or_sorted_otherwise_have_another_fingerprint(rows, tmp_path):
    def told(shapes):
        return RGBAVideoDataset(rows, dict, shapes=shapes).fingerprint()

    def changed(now):
        return [name for name in before if before[name] != now[name]]

    short, long = Bucket(5, 16, 16), Bucket(9, 16, 16)
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "0.png").write_bytes(b"12")
    rows.append(Row(3, frames))
    before = told([short, short, long])
    assert changed(told([short, short, long])) == []
    assert changed(told([short, long, short])) == ["the clips' buckets"]
    (frames / "0.png").write_bytes(b"1")
    (frames / "1.png").write_bytes(b"2")  # as many bytes, in more files
    assert changed(told([short, short, long])) == ["the clips' files"]
    before = told([short, short, long])
    with open(rows[0].matte, "ab") as file:
        file.write(b"x")
    assert changed(told([short, short, long])) == ["the clips' files"]
    rows[1].foreground.unlink()
    with pytest.raises(DataError, match="owl.mkv: cannot be looked at: No such file"):
        told(None)
