"""The script that measures memory: each phase of the tiny model runs, and figures land where inspect reads them."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

from wan_alpha.weights.memory import PHASES, phase_peaks, predicted_bytes
from wan_alpha.weights.registry import known_model

SCRIPT = Path(__file__).parents[2] / "examples" / "measure_memory.py"
SPEC = importlib.util.spec_from_file_location("measure_memory", SCRIPT)
measure_memory = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(measure_memory)
REGISTRY = Path(str(measure_memory.files("wan_alpha"))) / "assets" / "wan_models.json"


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_of_the_tiny_model_runs_and_holds_its_weights(phase, tmp_path):
    model = known_model("tiny")
    paths = measure_memory.write_weights(tmp_path, model, phase)
    peak, held = measure_memory.measure(phase, paths, model, (5, 32, 32), "bfloat16", "cpu")
    # What training adds is on top of what is held; adapters and decoders' LoRA are float32.
    grown = 4 if phase in ("full", "lora", "dora") else 0.5
    assert peak >= 0 and held * 2**30 >= predicted_bytes(phase, model) / grown / 2
    assert sum(path.stat().st_size for path in paths.values()) > 0


def test_figures_are_written_beside_those_that_stay(tmp_path, monkeypatch, capsys):
    """Processes are stood in for by calls; what does not fit is named and stays as it was."""
    path = tmp_path / "wan_models.json"
    path.write_text(REGISTRY.read_text(encoding="utf-8"), encoding="utf-8")
    before = json.loads(path.read_text())
    answers = {"find_device": ("cpu", "CPU", 8.0), "write_weights": {}, "measure": (3.0, 2.0)}
    monkeypatch.setattr(measure_memory, "in_fresh_process", lambda function, *_: answers[function.__name__])
    write = measure_memory.write_registry
    monkeypatch.setattr(measure_memory, "write_registry", lambda name, entries: write(name, entries, path))
    arguments = ["--model", "Wan2.1-T2V-14B", "--work_dir", str(tmp_path / "work"), "--write"]
    assert measure_memory.main([*arguments, "--phases", "encoding,load,full"]) == 0
    shown = capsys.readouterr().out
    assert "encoding on CPU in bf16: peak 3.00 GiB, 2.00 GiB of weights, 1.50 times the model, clip of 17x" in shown
    assert "load: not measured, its weights take 26.61 GiB of 7.20" in shown and "full: not measured" in shown
    after = json.loads(path.read_text())
    with_this_vae = {name for name in after["models"] if name != "tiny" and "5B" not in name}
    assert len(with_this_vae) > 3
    for name in with_this_vae:
        written = after["models"][name]["memory"].pop("encoding")
        assert written.pop("date").startswith("20")
        assert written == {"gib": 3.0, "device": "CPU", "precision": "bf16", "clip": "17x272x272"}
        before["models"][name]["memory"].pop("encoding")
    assert after == before
    assert measure_memory.main([*arguments, "--limit_gib", "99", "--phases", "load"]) == 1  # 1.5 times the model
    with pytest.raises(SystemExit):
        measure_memory.main([*arguments, "--phases", "flying"])


def test_on_cuda_the_devices_own_peak_counts(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Stand-in 9000")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (6 * 2**30, 8 * 2**30))
    assert measure_memory.peak_gib("cuda") == 3.0
    assert measure_memory.find_device("auto") == ("cuda", "Stand-in 9000", 6.0)
    device, name, free = measure_memory.find_device("cpu")
    assert (device, name) == ("cpu", "CPU") and 0 < free < math.inf


def test_the_registry_holds_what_was_measured():
    peaks = phase_peaks(known_model("Wan2.1-T2V-1.3B"))
    assert {"load", "encoding", "sampling"} <= {phase for phase, peak in peaks.items() if peak.is_measured}
    for phase, peak in peaks.items():
        if peak.is_measured:
            assert peak.gib * 2**30 >= 0.9 * predicted_bytes(phase, known_model("Wan2.1-T2V-1.3B"))
