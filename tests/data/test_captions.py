"""Several captions of a clip: read from every place that can hold them, one taken by each sample."""

import json
import math
from collections import Counter

import pytest

from wan_alpha.data.captions import join_captions, read_captions
from wan_alpha.data.manifest import read_manifest, read_rows, write_manifest
from wan_alpha.data.sampling import choose_caption, derive_seed


@pytest.mark.parametrize(
    ("record", "captions"),
    [
        ({}, ("",)),
        ({"prompt": " a cat "}, ("a cat",)),
        ({"prompt": None}, ("",)),
        ({"prompt": math.nan}, ("",)),
        ({"prompt": ["a", "b", "a"]}, ("a", "b")),
        ({"prompt": json.dumps(["a", " b"])}, ("a", "b")),
        ({"prompt": "[wide shot] a cat"}, ("[wide shot] a cat",)),
        ({"prompt": "[1, 2]"}, ("[1, 2]",)),
        ({"prompt": "[]"}, ("",)),
        ({"prompt": "a", "prompt_10": "k", "prompt_2": "b", "prompt_3": "", "prompt_x": "no"}, ("a", "b", "k")),
        ({"prompt": "", "prompt_2": "b"}, ("b",)),
    ],
)
def test_captions_are_read(record, captions):
    assert read_captions(record) == captions


@pytest.mark.parametrize("captions", [("a",), ("",), ("a", "b"), ('["a"]',), ("[x] y",), ('größer, "x"', "b")])
def test_captions_come_back_from_one_cell(captions):
    assert read_captions({"prompt": join_captions(captions)}) == captions


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_manifest_keeps_them(tmp_path, suffix):
    (tmp_path / "a.png").touch()
    path = tmp_path / f"metadata.{suffix}"
    write_manifest(path, [{"video_fgr": "a.png", "prompt": join_captions(["a, b", "c"])}])
    (row,) = read_manifest(path)
    assert (row.prompt, row.other_prompts, row.captions) == ("a, b", ("c",), ("a, b", "c"))


def test_another_caption_column_is_taken_alone(tmp_path):
    (tmp_path / "a.png").touch()
    record = {"video": "a.png", "prompt": "p", "prompt_2": "q", "label": ["l", "m"]}
    (tmp_path / "m.jsonl").write_text(json.dumps(record))
    (row,) = read_rows(tmp_path / "m.jsonl", caption_column="label")
    assert row.captions == ("l", "m")


@pytest.mark.parametrize(
    ("columns", "shape"),
    [
        ({"num_frames": 9, "height": 64, "width": "48"}, (9, 64, 48)),
        ({"num_frames": "9.0", "height": 64.0, "width": 48}, (9, 64, 48)),
        ({"num_frames": 9, "height": 64}, None),
        ({"num_frames": "many", "height": 64, "width": 48}, None),
        ({"num_frames": 0, "height": 64, "width": 48}, None),
    ],
)
def test_sizes_that_a_manifest_lists(tmp_path, columns, shape):
    (tmp_path / "a.png").touch()
    (tmp_path / "m.jsonl").write_text(json.dumps({"video": "a.png"} | columns))
    assert read_manifest(tmp_path / "m.jsonl")[0].listed_shape == shape


def test_each_sample_takes_one_by_seed_epoch_and_index():
    def chosen(seed, epoch):
        return [choose_caption(3, derive_seed(seed, epoch, index)) for index in range(300)]

    assert chosen(1, 0) == chosen(1, 0) and chosen(1, 0) != chosen(1, 1) and chosen(1, 0) != chosen(2, 0)
    assert min(Counter(chosen(1, 0)).values()) > 75
    assert {choose_caption(1, seed) for seed in range(20)} == {0}
