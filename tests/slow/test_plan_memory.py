"""What ``wan-alpha plan`` predicts against what training takes, at widths of real models: within a tenth.

pytest -n 0 -m slow tests/slow/test_plan_memory.py -s
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import bench_plan  # noqa: E402

pytestmark = pytest.mark.slow

CASES = bench_plan.real_width_cases(num_blocks=3)
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_prediction_is_within_a_tenth_of_what_was_measured(case, device):
    ((_, predicted, measured),) = bench_plan.compare([case], device)
    print(f"\n{case.name} on {device}: predicted {predicted:.2f} GiB, measured {measured:.2f} GiB")
    assert predicted == pytest.approx(measured, rel=0.1)
