"""The stream is a safetensors file as the library reads it."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file

from wan_alpha.weights.io import read_metadata
from wan_alpha.weights.safetensors_stream import CONTENT_SHA256, safetensors_stream

TENSORS = {
    "b": torch.arange(5, dtype=torch.uint8), "a/odd name": torch.randn(2, 3), "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(3.5), "half": torch.randn(7).bfloat16(), "flag": torch.tensor([True, False]),
    "across": torch.randn(4, 6).T, "long": torch.tensor([2**62]), "part": torch.randn(10)[3:5],
}  # fmt: skip


@pytest.mark.parametrize("metadata", [None, {"step": "3", "recipe": {"a": [1]}}])
def test_the_library_reads_it(tmp_path, metadata):
    num_bytes, chunks = safetensors_stream(TENSORS, metadata)
    content = b"".join(bytes(chunk) for chunk in chunks)
    assert len(content) == num_bytes
    (tmp_path / "x.safetensors").write_bytes(content)
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype
    expected = {} if metadata is None else {"step": "3", "recipe": '{"a": [1]}'}
    assert read_metadata(tmp_path / "x.safetensors") == expected


def test_the_hash_of_the_tensors_is_taken_when_they_are_written(tmp_path):
    tensors = {"a": torch.zeros(5), "b": torch.ones(3, dtype=torch.uint8)}
    num_bytes, chunks = safetensors_stream(tensors, {"hash": CONTENT_SHA256, "step": "3"})
    tensors["a"].fill_(7)
    content = b"".join(bytes(chunk) for chunk in chunks)
    assert len(content) == num_bytes
    (tmp_path / "x.safetensors").write_bytes(content)
    after_header = content[8 + int.from_bytes(content[:8], "little") :]
    assert after_header == tensors["a"].numpy().tobytes() + b"\1\1\1"
    expected = {"hash": "0x" + hashlib.sha256(after_header).hexdigest(), "step": "3"}
    assert read_metadata(tmp_path / "x.safetensors") == expected


def test_an_unknown_type_is_refused():
    with pytest.raises(KeyError, match="complex"):
        safetensors_stream({"z": torch.zeros(2, dtype=torch.complex64)})
