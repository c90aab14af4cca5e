"""The benchmarks compare equals: every way that they time gives the same numbers and gradients."""

from pathlib import Path

import bench_decoder_lora
import bench_dora
import bench_engine
import bench_metrics
import bench_plan
import bench_prepare
import bench_read
import bench_saving
import bench_training
import bench_whole_clip
import bench_write
import numpy as np
import pytest
import torch
from side_by_side import differences, random_vae

from wan_alpha.models.decoder_lora import DecoderLoRA
from wan_alpha.training.checkpoint_folder import find_newest
from wan_alpha.weights.io import load_state_dict

TOLERANCE = 1e-4


def test_composed_weights_equal_a_second_convolution():
    ways = bench_decoder_lora.compare(width=8, size=16, num_frames=9, rank=4)
    assert ways[0].output.shape == (1, 3, 9, 16, 16) and ways[0].output.std() > 0.01
    assert max(differences(ways[1], ways[0])) <= TOLERANCE


@torch.no_grad()
def test_the_second_convolutions_change_the_output():
    """Without this, two ways that both leave the LoRA out would compare equal."""
    vae, identity = random_vae(8), [torch.zeros(16), torch.ones(16)]
    lora = DecoderLoRA(vae.decoder, rank=4)
    for _, pair in lora.named_pairs():
        pair.lora_B.fill_(0.1)
    latents = torch.ones(1, 16, 2, 2, 2)
    beside = bench_decoder_lora.with_second_convolutions(vae, lora).decode(latents, identity)
    assert (beside - vae.decode(latents, identity)).abs().max() > 100 * TOLERANCE


def test_whole_clip_chunks_and_frame_groups_are_equal():
    compared = bench_whole_clip.compare(width=8, size=16, num_frames=9)
    assert len(compared) == 4
    for (_, backward), ways in compared.items():
        assert ways[0].output.std() > 0.01
        for way in ways[1:]:
            output, gradient = differences(way, ways[0])
            assert output <= TOLERANCE and (gradient is not None) == backward
            assert not backward or gradient <= TOLERANCE


def test_a_plan_is_made_and_measured_for_what_is_trained():
    sizes = {
        "dim": 24,
        "ffn_dim": 32,
        "num_heads": 2,
        "num_layers": 3,
        "in_dim": 16,
        "out_dim": 16,
        "image_input": False,
    }
    case = bench_plan.Case("train-dit", "small", {"adapter.kind": "lora"}, sizes, (16, 2, 4, 4))
    assert bench_plan.predict(case, "cpu") > 0
    assert bench_plan.measure(case, "cpu") >= 0  # this process may have held more before
    names = [case.name for case in bench_plan.real_width_cases()]
    assert len(set(names)) == len(names) == 5


def test_the_factored_dora_equals_peft():
    lora, peft, factored = bench_dora.compare(width=16, hidden=40, num_heads=2, num_tokens=6, rank=4, repeats=2)
    assert max(differences(factored, peft)) <= TOLERANCE
    assert (lora.output - peft.output).abs().max() > TOLERANCE  # without the magnitude it is another function


def test_every_way_of_writing_stores_the_same_frames():
    timed = bench_write.compare(num_frames=6, height=40, width=64)
    expected = np.concatenate(list(bench_write.pan(6, 40, 64)))
    assert len(timed) == 4 and len(np.unique(expected[..., 3])) > 50
    for way in timed:
        assert np.array_equal(way.frames, expected), way.name


def test_memory_of_writing_is_measured_in_a_process_of_its_own():
    own, children = bench_write.peak_memory(3, 32, 32)
    assert 20 < own < 4000 and 2 < children < 1000  # MiB


def test_reading_gives_what_the_plain_way_gives(tmp_path):
    rows = bench_read.make_pairs(tmp_path, 1, 12, 64, 96, crf=10)
    plain, package = bench_read.compare(rows, 5, (32, 48), num_workers=(0,))
    assert package.rgba.shape == plain.rgba.shape == (4, 5, 32, 48) and package.rgba.std() > 0.1
    assert (package.rgba[3] - plain.rgba[3]).abs().mean() < 1 / 255
    opaque = plain.rgba[3] > 0.99  # elsewhere PIL mixes hidden colour into edges
    assert opaque.any() and (package.rgba - plain.rgba).abs()[:3, opaque].mean() < 3 / 255


def test_the_meter_equals_the_plain_metrics():
    for noise in (0.0, 0.05):
        (plain, *metered), _ = bench_metrics.compare(num_frames=3, height=48, width=80, noise=noise)
        assert plain.output.shape == (3, 9) and (plain.output[1:] > 0).all()
        for way in metered:
            assert ((way.output - plain.output).abs() <= TOLERANCE * plain.output.abs().clamp(min=TOLERANCE)).all()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux tells it")
def test_memory_does_not_grow_with_the_clip():
    """Not the benchmark's figure: 60 MB of small frames must not leave much behind."""
    bench_metrics.measure_memory(640, 64, 96)  # what libraries and the allocator take once
    assert bench_metrics.measure_memory(1280, 64, 96) < 16


def test_a_checkpoint_from_the_background_is_the_one_from_the_foreground(tmp_path):
    seconds, num_bytes = bench_saving.compare(2 * bench_saving.TENSOR_SIZE, tmp_path, repeats=1)
    assert set(seconds) == {"copy", "background", "foreground"}
    assert num_bytes > 3 * 4 * 2 * bench_saving.TENSOR_SIZE  # the weight and AdamW's two moments, float32
    ours, theirs = (
        load_state_dict(find_newest(tmp_path / way).checkpoint / "model.safetensors")
        for way in ("background", "foreground")
    )
    assert ours.keys() == theirs.keys() and len(ours) == 2
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_engines_cost_is_what_no_part_of_the_step_took(tmp_path):
    found = bench_engine.measure(tmp_path, 4, 2 * bench_engine.TENSOR_SIZE, shapes={"latents": (2, 3)})
    for seconds in found.values():
        parts = [seconds[what] for what in ("forward", "backward", "optimizer", "engine")]
        assert min(parts) > 0 and sum(parts) == pytest.approx(seconds["total"])


def test_prepare_and_doctor_find_the_same_whatever_the_number_of_processes(tmp_path):
    (tmp_path / "source").mkdir()
    bench_read.make_pairs(tmp_path / "source", 2, 6, 64, 96, crf=10)
    timed = bench_prepare.compare(tmp_path)
    assert [(one.work, one.workers) for one in timed] == [("prepare", 1), ("prepare", 2), ("doctor", 1), ("doctor", 2)]
    assert len(timed[0].outcome) == 3 and timed[0].outcome == timed[1].outcome
    assert len(timed[2].outcome) == 2 and timed[2].outcome == timed[3].outcome


def test_a_training_step_is_timed_both_ways():
    sizes = ["--repeats", "1", "--size", "5", "16", "16", "--precision", "fp32"]
    vae = bench_training.parse(["--stage", "vae", "--width", "8", "--rank", "2", *sizes])
    ours, plain = (bench_training.measure(vae, is_ours) for is_ours in (True, False))
    assert ours.loss == pytest.approx(plain.loss, rel=1e-4) and min(ours.flops, plain.flops) > 0
    dit = ["--stage", "dit", "--num_blocks", "1", "--width", "128", "--hidden", "128", *sizes]
    ours, plain = (bench_training.measure(bench_training.parse(dit), is_ours) for is_ours in (True, False))
    assert ours.flops > 0 and plain.flops > 0 and min(ours.seconds, plain.seconds) > 0 and ours.loss > 0
    again = bench_training.measure(bench_training.parse([*dit, "--gradient_checkpointing"]), True)
    assert again.flops == ours.flops and again.loss == ours.loss
