"""One run at a time in a folder; a dead one holds nothing."""

import os
import signal
import subprocess
import sys

import pytest
from durable_toy import train

from wan_alpha.errors import ConfigError
from wan_alpha.training.run_lock import run_lock

HOLD = """
import os, sys, time
from wan_alpha.training.run_lock import run_lock
with run_lock(sys.argv[1]):
    child = os.fork() if sys.argv[2] == "with a child" else -1
    if child:
        print(child, flush=True)
    time.sleep(120)
"""


def test_a_second_run_is_refused_until_the_first_is_done(tmp_path):
    with run_lock(tmp_path), pytest.raises(ConfigError, match="a run is going on there .this process.*kill -TERM"):
        train(tmp_path, max_steps=2)
    assert not (tmp_path / "checkpoints").exists()
    assert train(tmp_path, max_steps=2).step == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["alone", "with a child"])
def test_a_killed_run_leaves_no_lock(tmp_path, what):
    """Nor do processes that it had started to load data, and that live on for some seconds."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), what], stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(ConfigError, match=rf"process {holder.pid} on .*, since 20\d\d-"):
            train(tmp_path, max_steps=1)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert train(tmp_path, max_steps=1).step == 1
    finally:
        holder.kill()
        if child > 0:
            os.kill(child, signal.SIGKILL)
