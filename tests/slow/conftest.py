import pytest
from tiny_runs import write_tiny_runs


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory):
    return write_tiny_runs(tmp_path_factory.mktemp("tiny"))
