"""Checkpoints are flushed to the disk again and again, which on a busy disk takes longer than all else here."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from processes import run_together

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


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """What two processes of one job have left, see ``two_process_guards.py``."""
    folder = tmp_path_factory.mktemp("two")
    run_together(Path(__file__).with_name("two_process_guards.py"), folder)
    return folder
