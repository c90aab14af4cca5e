"""Two processes compute what one does with twice the batch."""

import pytest
import torch
from two_process_toy import GROUPED, LENGTHS, train

from wan_alpha.training.run_folder import read_metrics
from wan_alpha.weights.io import load_state_dict


@pytest.mark.parametrize("length", [*LENGTHS, GROUPED])
def test_two_processes_equal_one(tmp_path, two_processes, length):
    train(tmp_path, length, batch_size=4)
    one, two = read_metrics(tmp_path), read_metrics(two_processes / "every length" / str(length))
    assert [row["step"] for row in two] == list(range(1, 9))
    for name in ("loss", "gradient_norm", "noise_level"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-4)
    weights = load_state_dict(tmp_path / "final.safetensors")
    for name, tensor in load_state_dict(two_processes / "every length" / str(length) / "final.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-4, atol=1e-6)
