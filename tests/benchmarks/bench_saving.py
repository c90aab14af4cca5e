"""How long training waits for a checkpoint, beside the copy to host memory and a save in the foreground.

python tests/benchmarks/bench_saving.py --millions 100 --output_dir /somewhere/on/the/disk
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from wan_alpha.training.checkpoints import checkpoint_tensors
from wan_alpha.training.config import TrainingSettings
from wan_alpha.training.device import make_accelerator
from wan_alpha.training.host_copy import HostCopy
from wan_alpha.training.saving import Saver
from wan_alpha.training.signals import StopSignals
from wan_alpha.training.state import RunState

TENSOR_SIZE = 1 << 20


def trained(num_values, device):
    """Parameters with an AdamW that has made a step."""
    count = max(1, num_values // TENSOR_SIZE)
    parameters = {f"p{i}": torch.nn.Parameter(torch.randn(TENSOR_SIZE, device=device)) for i in range(count)}
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(parameters.values())
    optimizer.step()
    return parameters, optimizer


def compare(num_values, folder, device="cpu", repeats=3):
    """Seconds of the copy alone, of the wait with and without the background, each the fastest; and what was saved.

    Returns:
        ({"copy", "background", "foreground"} -> seconds, bytes of a checkpoint).
    """
    parameters, optimizer = trained(num_values, device)
    seconds, num_bytes, step = {}, 0, 0

    def files():
        return checkpoint_tensors(step, parameters, optimizer)

    copy = HostCopy()
    copy.take(files())  # the first fills the buffers' pages
    seconds["copy"] = min(_timed(lambda: copy.take(files())) for _ in range(repeats))
    for way in ("background", "foreground"):
        settings = TrainingSettings(max_steps=1, background_saving=way == "background", device=device)
        accelerator = make_accelerator(settings)
        with (
            StopSignals(announce=False) as signals,
            Saver(Path(folder) / way, settings, accelerator, signals) as saver,
        ):
            waits = []
            for _ in range(repeats + 1):
                step += 1
                waits.append(_timed(lambda saver=saver, step=step: saver.save(RunState(step=step), files)))
                saver.wait()
            seconds[way] = min(waits[1:])
        newest = max((Path(folder) / way).iterdir())
        num_bytes = sum(path.stat().st_size for path in newest.iterdir())
    return seconds, num_bytes


def _timed(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--millions", type=int, default=100, help="trained values, in millions")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output_dir", default=None, help="where to write; a temporary folder if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.output_dir) as folder:
        seconds, num_bytes = compare(options.millions * 10**6, folder, options.device)
        print(f"A checkpoint of {num_bytes / 1e6:.0f} MB on {options.device}: training waits")
        for way, value in seconds.items():
            print(f"  {way:11}{value * 1000:9.1f} ms, {value / seconds['copy']:7.2f} times the copy to host memory")


if __name__ == "__main__":
    main()
