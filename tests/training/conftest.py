"""Checkpoints are flushed to the disk again and again, which on a busy disk takes longer than all else here."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY_DISK = Path("/dev/shm")


@pytest.fixture
def tmp_path(request, tmp_path_factory):
    """pytest's, but in memory where the system has such a place."""
    if not os.access(MEMORY_DISK, os.W_OK):
        yield tmp_path_factory.mktemp("test")
        return
    folder = Path(tempfile.mkdtemp(prefix="wan_alpha_test_", dir=MEMORY_DISK))
    yield folder
    shutil.rmtree(folder)
