"""Fixtures that every floor's tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The folder of reference values (its README says what is in which file)."""
    return Path(__file__).parent / "reference"
