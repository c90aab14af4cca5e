"""The real sizes, from files in the real naming, with random weights: gigabytes of disk and memory, minutes.

pytest -n 0 -m slow tests/slow -s
"""

import json
import math
import multiprocessing
import resource
import sys

import pytest
import torch
from safetensors.torch import save_file

pytestmark = pytest.mark.slow

GIB = 2**30
DIT_1_3B = {
    "dim": 1536, "in_dim": 16, "ffn_dim": 8960, "out_dim": 16, "text_dim": 4096, "freq_dim": 256, "eps": 1e-6,
    "patch_size": (1, 2, 2), "num_heads": 12, "num_layers": 30, "has_image_input": False,
}  # fmt: skip
NUM_SHARDS = 3


def peak_gib():
    """Largest resident memory of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def in_fresh_process(function, *arguments):
    """Run in a process of its own and hand back what it returns.

    Its peak memory is then the function's own, as long as this process stays small: a child begins with its parent's.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def random_like(name, shape, generator, dtype):
    """A weight that keeps the variance of what passes through it; norms and scales near one."""
    if name.endswith(("gamma", "norm3.weight", "norm_q.weight", "norm_k.weight")):
        return torch.ones(shape, dtype=dtype)
    if len(shape) == 1:
        return torch.zeros(shape, dtype=dtype)
    return torch.randn(shape, generator=generator, dtype=dtype).mul_(math.prod(shape[1:]) ** -0.5)


def write_vae(path):
    from diffsynth.models.wan_video_vae import VideoVAE_

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in VideoVAE_(dim=96, z_dim=16).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    torch.save({name: random_like(name, shape, generator, torch.float32) for name, shape in shapes.items()}, path)


def write_dit(folder):
    """The 1.3B's tensors in shards with an index, one shard in memory at a time."""
    from diffsynth.models.wan_video_dit import WanModel

    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in WanModel(**DIT_1_3B).state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    names, weight_map = list(shapes), {}
    for number in range(NUM_SHARDS):
        file = f"diffusion_pytorch_model-{number + 1:05d}-of-{NUM_SHARDS:05d}.safetensors"
        part = names[number::NUM_SHARDS]
        save_file({name: random_like(name, shapes[name], generator, torch.bfloat16) for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return sum(math.prod(shape) for shape in shapes.values()) * 2 / GIB


def largest_difference(found, expected):
    return max((one - other).abs().max().item() for one, other in zip(found, expected, strict=True))


def run_vae(folder):
    from wan_alpha import RGBAlphaVAE, load_decoder_lora

    base = folder / "Wan2.1_VAE.pth"
    vae = RGBAlphaVAE.from_pretrained(base)
    assert vae.merge.conv1.weight.shape[:2] == (384, 768)
    assert vae.foreground.rank == vae.alpha.rank == 128
    generator = torch.Generator().manual_seed(2)
    for stream in (vae.foreground, vae.alpha):
        for _, pair in stream.named_pairs():
            pair.lora_B.data.normal_(std=1e-2, generator=generator)
    rgb = torch.rand(1, 3, 5, 64, 64, generator=generator) * 2 - 1
    alpha = torch.rand(1, 1, 5, 64, 64, generator=generator)
    with torch.no_grad():
        latents = vae.encode(rgb, alpha)
        decoded = vae.decode(latents)
    assert latents.shape == (1, 16, 2, 8, 8) and latents.isfinite().all()
    assert decoded[0].shape == rgb.shape and decoded[1].shape == alpha.shape
    assert all(video.isfinite().all() for video in decoded)
    vae.save_released(folder / "pytorch_model.bin")
    vae.save_released(folder / "decoder.bin", decoders_only=True)
    vae.save(folder / "rgba_vae.safetensors")
    fingerprint = vae.fingerprint()
    del vae
    differences = {}
    for name in ("pytorch_model.bin", "rgba_vae.safetensors"):
        again = RGBAlphaVAE.from_pretrained(base, folder / name)
        assert again.fingerprint() == fingerprint
        with torch.no_grad():
            found = (again.encode(rgb, alpha), *again.decode(latents))
        differences[name] = largest_difference(found, (latents, *decoded))
    fresh = load_decoder_lora(RGBAlphaVAE.from_pretrained(base), folder / "decoder.bin")
    with torch.no_grad():
        differences["decoder.bin"] = largest_difference(fresh.decode(latents), decoded)
    return differences, peak_gib()


def run_dit(folder):
    from wan_alpha.models.adapters import add_adapter
    from wan_alpha.models.wan import load_wan, predict_velocity

    before = peak_gib()
    dit = load_wan(folder, components=("dit",), dtype=torch.bfloat16).dit
    peaks = {"imports": before, "loaded": peak_gib()}
    assert (dit.dim, len(dit.blocks), dit.blocks[0].self_attn.num_heads) == (1536, 30, 12)
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(1, 16, 2, 16, 16, generator=generator)
    context = torch.randn(1, 512, 4096, generator=generator)
    timesteps = torch.tensor([500.0])
    with torch.no_grad():
        velocity = predict_velocity(dit, latents, timesteps, context)
    assert velocity.shape == latents.shape and velocity.isfinite().all() and velocity.std() > 0
    peaks["forward"] = peak_gib()
    parameters = add_adapter(dit, "dora", rank=32, alpha=32)
    # q, k, v, o of self- and cross-attention and the two feed-forward layers: A, B and magnitude of each.
    assert len(parameters) == 30 * 10 * 3 and all(parameter.dtype == torch.float32 for parameter in parameters)
    peaks["adapter"] = peak_gib()
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    losses = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            predicted = predict_velocity(dit, latents, timesteps, context, gradient_checkpointing=True)
        loss = (predicted.float() - velocity - 0.1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in parameters)
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    peaks["training step"] = peak_gib()
    return losses, peaks


def test_the_full_width_vae_encodes_decodes_and_comes_back_in_the_released_naming(tmp_path):
    in_fresh_process(write_vae, tmp_path / "Wan2.1_VAE.pth")
    differences, peak = in_fresh_process(run_vae, tmp_path)
    print(f"\nfull-width VAE, rank 128: difference after reloading {differences}, peak memory {peak:.2f} GiB")
    assert max(differences.values()) <= 1e-5


def test_the_1_3b_dit_loads_from_its_real_layout_and_trains_a_dora(tmp_path):
    size = in_fresh_process(write_dit, tmp_path)
    losses, peaks = in_fresh_process(run_dit, tmp_path)
    table = ", ".join(f"{name} {peak:.2f}" for name, peak in peaks.items())
    print(f"\n1.3B DiT, {size:.2f} GiB of weights: peak memory in GiB after {table}; losses {losses}")
    # Loading never holds two copies of the model.
    assert peaks["loaded"] - peaks["imports"] <= 1.2 * size


def test_a_1_3b_file_loads_within_1_2_times_the_loaded_model_in_either_type(tmp_path):
    """Every weight is touched: pages of the file that stay mapped count."""
    import subprocess
    from pathlib import Path

    script = Path(__file__).parents[2] / "examples" / "measure_memory.py"
    for precision in ("bf16", "fp32"):
        done = subprocess.run(
            [sys.executable, str(script), "--model", "Wan2.1-T2V-1.3B", "--work_dir", str(tmp_path),
             "--phases", "load", "--precision", precision, "--device", "cpu"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        print(f"\n{done.stdout}")
        assert done.returncode == 0 and done.stdout.count("times the model") == 1, done.stderr
