"""The 1.3B DiT at its true size: 2.8 GB on disk, about 4 GB of memory."""

import pytest
import torch
from safetensors.torch import save_file

from wan_alpha.models.adapters import add_adapter
from wan_alpha.models.wan import load_wan, predict_velocity

SIZES = {
    "dim": 1536, "in_dim": 16, "ffn_dim": 8960, "out_dim": 16, "text_dim": 4096, "freq_dim": 256, "eps": 1e-6,
    "patch_size": (1, 2, 2), "num_heads": 12, "num_layers": 30, "has_image_input": False,
}  # fmt: skip


@pytest.mark.slow
def test_the_1_3b_dit_loads_from_its_real_layout_and_takes_a_dora_step(tmp_path):
    from diffsynth.models.wan_video_dit import WanModel

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in WanModel(**SIZES).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        weights[name] = torch.randn(shape, generator=generator, dtype=torch.bfloat16).mul_(0.02)
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    del weights
    dit = load_wan(tmp_path, components=("dit",), dtype=torch.bfloat16).dit
    assert len(dit.blocks) == 30 and dit.blocks[0].self_attn.num_heads == 12
    parameters = add_adapter(dit, "dora", rank=32, alpha=32)
    assert len(parameters) == 30 * 10 * 3
    latents = torch.randn(1, 16, 2, 16, 16, generator=generator)
    context = torch.randn(1, 512, 4096, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = predict_velocity(dit, latents, torch.tensor([500.0]), context, gradient_checkpointing=True)
    assert velocity.shape == latents.shape and velocity.isfinite().all()
    velocity.pow(2).mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in parameters)
