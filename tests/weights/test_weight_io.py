"""Reading and writing weight files: what comes back, and what is refused with which words."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.io import (
    file_sha256,
    load_state_dict,
    load_tensor,
    load_training_state,
    read_metadata,
    save_pickle,
    save_safetensors,
    tensors_sha256,
)
from wan_alpha.weights.rgba_vae import check_same_base

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


class Opener:
    """Unpickles by calling something: what weight files must never be able to do."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def same(found, expected=TENSORS):
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in expected.items()
    )


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "module"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pytorch_files(tmp_path, suffix, wrapper, zipped):
    path = tmp_path / f"weights{suffix}"
    content = TENSORS if wrapper is None else {wrapper: TENSORS, "step": 3}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert same(load_state_dict(path)) and read_metadata(path) == {}


def test_safetensors_round_trip_with_metadata(tmp_path):
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    tensors = {**TENSORS, "view": TENSORS["a.weight"].t()}
    save_safetensors(tensors, path, {"kind": "dora", "rank": 4, "recipe": {"x": [1]}})
    assert same(load_state_dict(path), tensors)
    metadata = read_metadata(path)
    assert metadata["kind"] == "dora" and metadata["rank"] == "4" and json.loads(metadata["recipe"]) == {"x": [1]}


def fill_the_disk(tensors, filename):
    with open(filename, "wb") as file:
        file.write(b"half")
    raise OSError("no space left")


def half_a_stream(tensors, metadata=None):
    def chunks():
        yield b"half"
        raise OSError("no space left")

    return 100, chunks()


@pytest.mark.parametrize(
    ("save", "name", "writer", "failing"),
    [
        (save_safetensors, "weights.safetensors", "wan_alpha.weights.io.safetensors_stream", half_a_stream),
        (save_pickle, "weights.bin", "torch.save", fill_the_disk),
    ],
)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, save, name, writer, failing):
    path = tmp_path / name
    save(TENSORS, path)
    monkeypatch.setattr(writer, failing)
    with pytest.raises(OSError, match="no space left"):
        save({"a": torch.ones(1)}, path)
    assert same(load_state_dict(path)) and [file.name for file in tmp_path.iterdir()] == [name]


def test_the_same_tensors_and_metadata_are_the_same_bytes(tmp_path):
    metadata = {str(index): "x" for index in range(16)}
    save_safetensors(TENSORS, tmp_path / "a.safetensors", metadata)
    save_safetensors(TENSORS, tmp_path / "b.safetensors", dict(reversed(metadata.items())))
    contents = [(tmp_path / name).read_bytes() for name in ("a.safetensors", "b.safetensors")]
    assert contents[0] == contents[1]
    assert read_metadata(tmp_path / "a.safetensors") == metadata


def test_pickle_writer_is_read_back(tmp_path):
    save_pickle({"a": torch.ones(2, requires_grad=True)}, tmp_path / "weights.bin")
    assert not load_state_dict(tmp_path / "weights.bin")["a"].requires_grad


def test_code_in_a_file_is_never_run(tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"a": torch.ones(1), "b": Opener(trace)}, path)
    for reader in (load_state_dict, load_tensor, load_training_state):
        with pytest.raises(CheckpointError, match="weights.pth"):
            reader(path)
    path.write_bytes(pickle.dumps(Opener(trace), protocol=2))
    with pytest.raises(CheckpointError):
        load_state_dict(path)
    assert not trace.exists()


def make(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pth", None, "no such weight file"),
        ("empty.pth", b"", "the file is empty"),
        ("noise.pth", b"\x00\x01nothing", "not a PyTorch file"),
        ("noise.safetensors", b"nothing at all", "not a readable safetensors file"),
        ("weights.gguf", b"GGUF", r"expected \.safetensors.*found \.gguf"),
        ("list.pth", [torch.ones(1)], "expected a dict of tensors, found list"),
        ("nothing.pth", {}, "expected a dict of tensors"),
        ("mixed.pth", {"a": torch.ones(1), "lr": 0.1}, "found other values at lr"),
    ],
)
def test_what_is_no_state_dict_is_refused(name, content, message, tmp_path):
    path = make(tmp_path / name, content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_state_dict(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({"a": torch.zeros(4000)}, path)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(CheckpointError, match=f"weights{suffix}"):
        load_state_dict(path)


def test_one_bare_tensor(tmp_path):
    torch.save(torch.ones(2, 3, 4), tmp_path / "mask.pt")
    assert load_tensor(tmp_path / "mask.pt").shape == (2, 3, 4)
    torch.save({"mask": torch.ones(1)}, tmp_path / "dict.pt")
    with pytest.raises(CheckpointError, match="expected one tensor, found dict"):
        load_tensor(tmp_path / "dict.pt")


def test_hashes_depend_on_content_alone(tmp_path):
    save_safetensors(TENSORS, tmp_path / "a.safetensors")
    save_safetensors(TENSORS, tmp_path / "b.safetensors")
    assert file_sha256(tmp_path / "a.safetensors") == file_sha256(tmp_path / "b.safetensors")
    digest = tensors_sha256(TENSORS)
    assert digest == tensors_sha256(dict(reversed(TENSORS.items()))) and len(digest) == 64
    for changed in (
        {**TENSORS, "a.weight": TENSORS["a.weight"] + 1},
        {**TENSORS, "a.weight": TENSORS["a.weight"].view(3, 2)},
        {"c.weight": TENSORS["a.weight"], "b": TENSORS["b"]},
    ):
        assert tensors_sha256(changed) != digest


@pytest.mark.parametrize("save", [save_safetensors, save_pickle])
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_files_have_the_mode_of_any_new_file(save, mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        save(TENSORS, tmp_path / "weights")
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == mode


def test_a_training_state_keeps_its_nesting(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    torch.save({"step": 3, "model": {"w": weight.detach()}, "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    state = load_training_state(tmp_path / "state.pt")
    assert state["step"] == 3 and torch.equal(state["model"]["w"], weight)
    assert state["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list.pt: expected a training state \(a dict\), found list"):
        load_training_state(tmp_path / "list.pt")


def test_a_training_state_outlives_its_file(tmp_path):
    """A run that goes on writes over the file that its optimizer's tensors came from."""
    path = tmp_path / "state.pt"
    torch.save({"moments": torch.arange(4096.0)}, path)
    state = load_training_state(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(state["moments"], torch.arange(4096.0))


class Elsewhere(torch.Tensor):
    """A tensor as on an accelerator: operations with tensors of the CPU fail until it is brought there."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.allclose and not all(isinstance(value, cls) for value in args[:2]):
            raise RuntimeError("tensors on two devices")
        result = super().__torch_function__(func, types, args, kwargs or {})
        return result.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else result


def test_a_base_elsewhere_is_compared_with_the_files():
    own = {"conv": torch.ones(2).as_subclass(Elsewhere)}
    check_same_base({"conv": torch.ones(2).bfloat16()}, own, "a.bin")
    with pytest.raises(CheckpointError, match="conv differs"):
        check_same_base({"conv": torch.zeros(2)}, own, "a.bin")
