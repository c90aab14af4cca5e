"""Headers of weight files: read in full, believed in nothing, and never more than the header."""

import builtins
import json
import random
import struct

import pytest
import torch
from hostile_files import pickle_with_code, safetensors_bytes, tensor_entry, zip_bomb, zip_bytes
from safetensors.torch import save_file

from wan_alpha.errors import CheckpointError
from wan_alpha.weights import bounded_reader
from wan_alpha.weights.headers import read_header, read_scalar
from wan_alpha.weights.io import load_state_dict
from wan_alpha.weights.shards import check_index, indexed_shards, numbered_shards

TENSORS = {
    "a.weight": torch.arange(6.0).view(2, 3),
    "b": torch.ones(4, dtype=torch.bfloat16),
    "c": torch.zeros(5, dtype=torch.float8_e4m3fn),
    "d.alpha": torch.tensor(16.0, dtype=torch.bfloat16),
    "e": torch.zeros(2, 0, dtype=torch.int64),
}
NUM_FUZZED = 1000


class CountingFile:
    """Stands in for ``open``: notes how far each file was read."""

    def __init__(self):
        self.furthest, self.num_bytes = 0, 0

    def __call__(self, path, mode="r", **options):
        file, counts = builtins.open(path, mode, **options), self

        class Counting:
            def __getattr__(self, name):
                return getattr(file, name)

            def read(self, size=-1):
                data = file.read(size)
                counts.num_bytes += len(data)
                counts.furthest = max(counts.furthest, file.tell())
                return data

        return Counting()


def expected_infos():
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3", torch.int64: "I64"}
    return {name: (tuple(tensor.shape), names[tensor.dtype]) for name, tensor in TENSORS.items()}


def test_a_safetensors_header_without_the_tensors(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_file(TENSORS | {"large": torch.zeros(100_000)}, path, {"kind": "lora"})
    counting = CountingFile()
    monkeypatch.setattr(bounded_reader, "open", counting, raising=False)
    header = read_header(path)
    assert header.tensors == expected_infos() | {"large": ((100_000,), "F32")}
    assert header.metadata == {"kind": "lora"} and header.num_bytes == path.stat().st_size
    header_end = min(begin for begin, _ in header.spans.values())
    assert counting.furthest <= header_end and counting.num_bytes <= header_end + 24
    monkeypatch.undo()
    assert read_scalar(header, "d.alpha") == 16.0 and read_scalar(header, "a.weight") is None


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pickle_of_any_age_without_the_tensors(tmp_path, protocol, as_zip, wrapped):
    path = tmp_path / "a.pth"
    content = dict(TENSORS) | {"p": torch.nn.Parameter(torch.ones(3))}
    content = {"state_dict": content, "epoch": 3, "loss": [0.5, None, True]} if wrapped else content
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=as_zip)
    header = read_header(path)
    assert header.tensors == expected_infos() | {"p": ((3,), "F32")} and not header.is_bare
    torch.save(torch.zeros(3, 4, 5), path, _use_new_zipfile_serialization=as_zip)
    header = read_header(path)
    assert header.is_bare and header.tensors == {"": ((3, 4, 5), "F32")}


def test_of_a_large_pickle_the_header_only(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(1_000_000), "m": torch.nn.Linear(2, 2).state_dict()["weight"]}, path)
    assert read_header(path).num_bytes_read < 4096


def entries_of(**tensors):
    return safetensors_bytes(tensors, bytes(max((entry["data_offsets"][1] for entry in tensors.values()), default=0)))


BAD_SAFETENSORS = {
    "nothing": (b"", "the file is empty"),
    "three bytes": (b"abc", "not a readable safetensors file .3 bytes"),
    "a length of 2^63": (struct.pack("<Q", 2**63) + b"{}", "a header of 9223372036854775808 bytes"),
    "a length beyond the file": (struct.pack("<Q", 1000) + b"{}", "cut short within its header"),
    "not JSON": (safetensors_bytes(b"{nothing"), "header:"),
    "not text": (safetensors_bytes(b"\xff\xfe{}"), "header:"),
    "brackets without end": (safetensors_bytes(b"[" * 100_000), "header:"),
    "a list": (safetensors_bytes(b"[]"), "no table"),
    "a number of 5000 digits": (safetensors_bytes(b'{"a":' + b"9" * 5000 + b"}"), "header:"),
    "a name twice": (safetensors_bytes(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}'), "twice"),
    "no shape": (safetensors_bytes({"a": {"dtype": "F32"}}), "a: expected dtype, shape and data_offsets"),
    "an unknown type": (entries_of(a=tensor_entry([1], 0, 4, "F31")), "does not know .F31"),
    "a type of another width": (entries_of(a=tensor_entry([2], 0, 4, "F32")), "does not fill the 4 bytes"),
    "a negative size": (entries_of(a=tensor_entry([-1], 0, 4)), "no counts"),
    "a size that overflows": (entries_of(a=tensor_entry([2**62, 2**62, 4], 0, 0)), "does not fill"),
    "a size of half a number": (entries_of(a=tensor_entry([0.5], 0, 2)), "no counts"),
    "offsets that run backwards": (safetensors_bytes({"a": tensor_entry([1], 4, 0)}), "does not fill"),
    "offsets that overlap": (entries_of(a=tensor_entry([2], 0, 8), b=tensor_entry([2], 4, 12)), "overlaps another"),
    "a gap": (entries_of(a=tensor_entry([1], 0, 4), b=tensor_entry([1], 8, 12)), "leaves a gap"),
    "offsets beyond the file": (safetensors_bytes({"a": tensor_entry([4], 0, 16)}, bytes(7)), "truncated: "),
    "bytes too many": (safetensors_bytes({"a": tensor_entry([1], 0, 4)}, bytes(9)), "5 bytes after its last tensor"),
    "metadata of numbers": (safetensors_bytes({"__metadata__": {"a": 1}}), "metadata that is not text"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
}


@pytest.mark.parametrize("name", BAD_SAFETENSORS)
def test_a_damaged_safetensors_file_is_refused_by_name(tmp_path, name):
    content, message = BAD_SAFETENSORS[name]
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as refused:
        read_header(path)
    assert str(path) in str(refused.value)


BAD_PICKLES = {
    "a zip bomb": (lambda _: zip_bomb(), "a zip bomb, or packed by another tool"),
    "code": (pickle_with_code, "names .*exec: code.* Nothing was run; ask its maker for safetensors"),
    "a name that leaves": (lambda _: zip_bytes({"a/data.pkl": b"", "../../x": b"1"}), "a name that leaves its folder"),
    "another zip": (lambda _: zip_bytes({"a.txt": b"hello"}), "not one of torch.save"),
    "a memo of 2^32": (lambda _: zip_bytes({"a/data.pkl": b"\x80\x02}r\xff\xff\xff\xffX\xff\xff\xff\xff"}), "damaged"),
    "a bare pickle": (lambda _: b"\x80\x02}q\x00.", "none of torch.save"),
    "a web page": (lambda _: b"<!DOCTYPE html><html></html>", "a web page"),
    "GGUF": (lambda _: b"GGUF\x03\x00\x00\x00", "GGUF, .* take the safetensors"),
    "text": (lambda _: b"hello", "not a PyTorch file"),
}


@pytest.mark.parametrize("name", BAD_PICKLES)
def test_a_harmful_pickle_is_refused_and_nothing_in_it_is_run(tmp_path, name):
    make, message = BAD_PICKLES[name]
    path, trace = tmp_path / "harmful.pth", tmp_path / "trace"
    path.write_bytes(make(trace))
    with pytest.raises(CheckpointError, match=message) as refused:
        read_header(path)
    assert str(path) in str(refused.value) and not trace.exists()
    with pytest.raises(CheckpointError):
        load_state_dict(path)
    assert not trace.exists()


def test_a_truncated_pickle_is_refused_wherever_it_was_cut(tmp_path):
    whole, path = tmp_path / "whole.pth", tmp_path / "cut.pth"
    for as_zip in (True, False):
        torch.save(TENSORS, whole, _use_new_zipfile_serialization=as_zip)
        content = whole.read_bytes()
        for length in range(1, len(content), 97):
            path.write_bytes(content[:length])
            with pytest.raises(CheckpointError, match="cut.pth"):
                read_header(path)


def damage(content, chance):
    """A file with some of its bytes, most of them in the header, changed, cut, repeated or set to extremes."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5, 40))):
        place = chance.randrange(min(len(content), 600)) if chance.random() < 0.8 else chance.randrange(len(content))
        way = chance.randrange(5)
        if way == 0:
            content[place] = chance.randrange(256)
        elif way == 1:
            content[place] ^= 1 << chance.randrange(8)
        elif way == 2:
            del content[place : place + chance.randrange(1, 30)]
        elif way == 3:
            content[place:place] = content[place : place + chance.randrange(1, 30)]
        else:
            content[place : place + 8] = chance.choice((b"\xff" * 8, bytes(8), b"99999999", b"[[[[[[[[", b'","":{}'))
        if not content:
            break
    return bytes(content)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", "old .pth"])
def test_fuzzed_headers_never_crash_nor_read_outside(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"whole{suffix.split()[-1]}"
    if suffix == ".safetensors":
        save_file(TENSORS, path, {"note": "x" * 50})
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=suffix == ".pth")
    whole, chance, refused = path.read_bytes(), random.Random(suffix), 0
    counting = CountingFile()
    monkeypatch.setattr(bounded_reader, "open", counting, raising=False)
    for number in range(NUM_FUZZED if suffix == ".safetensors" else NUM_FUZZED // 2):
        damaged = damage(whole, chance)
        path.write_bytes(damaged)
        counting.num_bytes = counting.furthest = 0
        try:
            header = read_header(path)
        except CheckpointError as error:
            refused += 1
            assert path.name in str(error), number
        else:
            assert all(end <= len(damaged) for _, end in header.spans.values())
        assert counting.furthest <= len(damaged) and counting.num_bytes <= 20 * len(damaged) + 100_000
    assert refused > number * 0.3


def write_shards(folder, suffix=".safetensors"):
    names = [f"model-{number:05d}-of-00002{suffix}" for number in (1, 2)]
    parts = [{"a.weight": TENSORS["a.weight"]}, {"b": TENSORS["b"]}]
    for name, part in zip(names, parts, strict=True):
        (save_file if suffix == ".safetensors" else torch.save)(part, folder / name)
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a.weight": names[0], "b": names[1]}}))
    return index, [folder / name for name in names]


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_by_index_or_by_name(tmp_path, suffix):
    index, paths = write_shards(tmp_path, suffix)
    assert indexed_shards(index) == paths and numbered_shards(paths[1]) == paths
    assert [list(header.tensors) for header in check_index(index)] == [["a.weight"], ["b"]]
    paths[1].unlink()
    for function, argument in ((indexed_shards, index), (numbered_shards, paths[0])):
        with pytest.raises(CheckpointError, match=f"2 shards, {paths[1].name} missing; download again"):
            function(argument)


def test_a_bad_index_or_shard_is_named(tmp_path):
    index, paths = write_shards(tmp_path)
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:-2])
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors: truncated"):
        check_index(index)
    save_file({"other": torch.ones(1)}, paths[1])
    with pytest.raises(
        CheckpointError, match="00002-of-00002.safetensors: lacks b, which model.safetensors.index.json"
    ):
        check_index(index)
    bad = {
        "not json": "expected a weight_map",
        "[]": "found list",
        '{"weight_map": {}}': "expected a weight_map",
        '{"weight_map": {"a": 3}}': "expected a weight_map",
        '{"weight_map": {"a": "../secret.safetensors"}}': "'../secret.safetensors', which is outside its folder",
        '{"weight_map": {"a": "/etc/passwd"}}': "outside its folder",
        '{"weight_map": {"a": ".."}}': "outside its folder",
    }
    for text, message in bad.items():
        index.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            indexed_shards(index)
