"""Hashes that are remembered are those of the files as they are."""

import hashlib
import os

import pytest

from wan_alpha.data import digests as digests_module
from wan_alpha.data.digests import Digests
from wan_alpha.errors import CheckpointError


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that were read to be hashed."""
    names = []
    original = digests_module.file_sha256

    def record(path, callback=None):
        names.append(path.name)
        return original(path, callback)

    monkeypatch.setattr(digests_module, "file_sha256", record)
    return names


def test_an_unchanged_file_is_read_once(tmp_path, hashed):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"abc")
    first = Digests(tmp_path)
    assert first.file(file) == first.file(file) == hashlib.sha256(b"abc").hexdigest()
    first.save()
    assert Digests(tmp_path).file(file) == first.file(file)
    assert hashed == ["weights.pth"]


@pytest.mark.parametrize("content, seconds", [(b"abcd", 0), (b"xyz", 5)], ids=["size", "time"])
def test_a_changed_file_is_read_again(tmp_path, hashed, content, seconds):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"abc")
    state = file.stat()
    first = Digests(tmp_path)
    first.file(file)
    first.save()
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + seconds * 10**9))
    assert Digests(tmp_path).file(file) == hashlib.sha256(content).hexdigest()
    assert len(hashed) == 2


def test_a_folder_counts_by_names_and_contents(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"a")
    before = Digests(tmp_path).source(folder)
    (folder / "0.png").rename(folder / "1.png")
    assert Digests(tmp_path).source(folder) != before


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_list_counts_as_empty(tmp_path, text):
    (tmp_path / "digests.json").write_text(text)
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    assert Digests(tmp_path).file(file) == hashlib.sha256(b"abc").hexdigest()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pth"):
        Digests(tmp_path).file(tmp_path / "gone.pth")
