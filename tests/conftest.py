"""Fixtures that every floor's tests share."""

import gc
import os
from pathlib import Path

import pytest

# Before torch is loaded, here and in the processes that tests start: their tensors are far too small to be shared out,
# and threads that wait for each other on a busy machine cost several times the work itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The folder of reference values (its README says what is in which file)."""
    return Path(__file__).parent / "reference"


def pytest_collection_finish():
    """What is imported by now stays: left out of garbage collections, of which sampling asks for one after each model,
    they take milliseconds instead of half a second."""
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()
