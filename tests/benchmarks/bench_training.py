"""One training step of each stage, our way and the plain way, in one run: time, tokens, peak memory, matrix rate.

    python tests/benchmarks/bench_training.py --stage dit --num_blocks 4 --size 17 272 272         # a CPU
    python tests/benchmarks/bench_training.py --stage dit --device cuda --size 81 480 832 --gradient_checkpointing
    python tests/benchmarks/bench_training.py --stage vae --device cuda --size 17 272 272 --cap_gib 24

dit: a DiT of the 1.3B model's widths with random weights and an adapter, on latents. Plain is diffsynth's flow-matching
     loss on its own model function, with PEFT's adapter.
vae: the RGBA VAE of the released width. Plain is diffsynth's VAE in groups of frames, the LoRA of each decoder a second
     convolution beside every first; its loss is ours, without the perceptual network, as ours here.

The share of the matrix rate: the multiplications that a step needs (torch's FLOP counter, one forward and backward;
what gradient checkpointing computes again is not counted; the same number for both, of the way with fewer), against
what a large bf16 product reaches on the device.
"""

import argparse
import copy
import math
import multiprocessing
import os
import resource
import time
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from bench_decoder_lora import with_second_convolutions
from diffsynth.diffusion.loss import FlowMatchSFTLoss
from diffsynth.models.wan_video_dit import WanModel, precompute_freqs_cis_3d
from diffsynth.pipelines.wan_video import WanVideoPipeline
from peft import LoraConfig, inject_adapter_in_model
from rich.console import Console
from rich.table import Table
from side_by_side import random_vae
from torch import nn
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.stages.stage1_vae import ReconstructionModule, build_loss
from wan_alpha.stages.stage2_dit import WanAlphaTrainingModule
from wan_alpha.training.device import autocast
from wan_alpha.training.recipes import AdapterSettings
from wan_alpha.training.recipes.vae import LossSettings

GIB = 2**30
TARGETS = AdapterSettings().targets
WIDTHS = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12}  # of Wan2.1-T2V-1.3B, which has 30 blocks


@dataclass
class Taken:
    """What one way took: seconds of a step (the fastest), peak bytes, FLOPs of a step, and its first loss."""

    name: str
    seconds: float
    peak: int
    flops: int
    loss: float


def random_dit(num_blocks, device, dtype, text_dim=4096, **widths):
    """A text-to-video DiT with random weights of the usual size."""
    sizes = {"in_dim": 16, "out_dim": 16, "freq_dim": 256, "eps": 1e-6, "patch_size": (1, 2, 2), **WIDTHS, **widths}
    with torch.device("meta"):
        dit = WanModel(has_image_input=False, text_dim=text_dim, num_layers=num_blocks, **sizes)
    dit.freqs = precompute_freqs_cis_3d(sizes["dim"] // sizes["num_heads"])
    dit = dit.to_empty(device=device).to(dtype).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in dit.named_parameters():
        parameter.normal_(std=0.02, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.add_(1)
    return dit


def latent_batch(size, text_dim, num_tokens, device):
    """One sample as the latent cache gives it; size: frames, height, width of the clip."""
    frames, height, width = size
    shape = (frames + 3) // 4, height // 8, width // 8
    generator = torch.Generator().manual_seed(1)
    return {
        "latents": torch.randn(1, 16, *shape, generator=generator).to(device),
        "context": torch.randn(1, num_tokens, text_dim, generator=generator).to(device),
        "ellipse": torch.zeros(1, *shape, device=device),
        "sample_seed": torch.tensor([3]), "prompt": ["a"],
    }  # fmt: skip


def plain_dit_step(dit, batch, kind, rank, gradient_checkpointing, precision):
    """diffsynth's loss of the DiT with PEFT's adapter; () -> loss."""
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS), use_dora=kind == "dora"), dit
    )
    for name, parameter in dit.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    device = batch["latents"].device
    pipe = WanVideoPipeline(device=device, torch_dtype=dit.patch_embedding.weight.dtype)
    pipe.dit = dit
    pipe.scheduler.set_timesteps(1000, training=True)
    inputs = {"input_latents": batch["latents"].to(pipe.torch_dtype), "context": batch["context"].to(pipe.torch_dtype)}

    def loss():
        with autocast(device, precision):
            return FlowMatchSFTLoss(pipe, **inputs, use_gradient_checkpointing=gradient_checkpointing)

    return loss, dit


def our_dit_step(dit, batch, kind, rank, gradient_checkpointing, precision):
    """The stage's module on the same; () -> loss."""
    device = batch["latents"].device
    pipe = WanVideoPipeline(device=device, torch_dtype=dit.patch_embedding.weight.dtype)
    pipe.dit = dit
    module = WanAlphaTrainingModule(
        pipe, AdapterSettings(kind=kind, rank=rank, alpha=rank), None, gradient_checkpointing
    )

    def loss():
        with autocast(device, precision):
            return module(batch)["total"]

    return loss, dit


def clip_batch(size, device):
    """One clip as the dataset gives it."""
    generator = torch.Generator().manual_seed(1)
    return {
        "rgb": (torch.rand(1, 3, *size, generator=generator) * 2 - 1).to(device),
        "alpha": torch.rand(1, 1, *size, generator=generator).to(device),
        "sample_seed": torch.tensor([3]),
    }


def our_vae_step(vae, batch, precision):
    """The stage's module: whole clips, weights composed once a step; () -> loss."""
    module = ReconstructionModule(vae, build_loss(LossSettings(perceptual="none")))

    def loss():
        with autocast(batch["rgb"].device, precision):
            return module(batch)["total"]

    return loss, module


class Twice(nn.Module):
    """Stands for the convolution that gives mean and log-variance, of which diffsynth's encode keeps the first."""

    def forward(self, x):
        return torch.cat([x, x], dim=1)


class PlainVAE(nn.Module):
    """The weights of an RGBA VAE, run by diffsynth's own encode and decode: one group of frames after the other."""

    def __init__(self, vae):
        super().__init__()
        self.encoder = copy.deepcopy(vae.base, {id(parameter): parameter for parameter in vae.base.parameters()})
        # What it encodes to is then what its head would get.
        self.encoder.z_dim = vae.base.encoder.head[2].weight.shape[1]
        self.encoder.encoder.head, self.encoder.conv1 = nn.Sequential(), Twice()
        self.merge = vae.merge
        self.decoders = nn.ModuleList(
            [with_second_convolutions(vae.base, lora) for lora in (vae.foreground, vae.alpha)]
        )

    def encode_raw(self, rendered, alpha):
        scale = [torch.zeros(self.encoder.z_dim), torch.ones(self.encoder.z_dim)]
        streams = rendered, (alpha * 2 - 1).expand_as(rendered)
        return self.merge(*(self.encoder.encode(video, scale) for video in streams))

    def decode_raw(self, latents):
        scale = [torch.zeros(latents.shape[1]), torch.ones(latents.shape[1])]
        decoded = []
        for decoder in self.decoders:
            decoder.clear_cache()
            decoded.append(decoder.decode(latents, scale))
        return tuple(decoded)


def plain_vae_step(vae, batch, precision):
    """The same weights and loss through :class:`PlainVAE`; () -> loss."""
    return our_vae_step(PlainVAE(vae), batch, precision)


def measure(options, is_ours):
    """Build, take steps, measure; in a process of its own, whose peak is then this way's."""
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.cap_gib and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(options.cap_gib * GIB / torch.cuda.mem_get_info()[1])
    torch.manual_seed(0)
    if options.stage == "dit":
        dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        sizes = {"dim": options.width, "ffn_dim": options.hidden, "num_heads": options.width // 128}
        dit = random_dit(options.num_blocks, device, dtype, **sizes)
        batch = latent_batch(options.size, 4096, 512, device)
        make = our_dit_step if is_ours else plain_dit_step
        loss, module = make(dit, batch, options.kind, options.rank, options.gradient_checkpointing, options.precision)
    else:
        vae = RGBAlphaVAE(random_vae(options.width), options.rank).set_trainable("full").to(device)
        vae.gradient_checkpointing = options.gradient_checkpointing  # diffsynth's decoder knows none
        make = our_vae_step if is_ours else plain_vae_step
        loss, module = make(vae, clip_batch(options.size, device), options.precision)
    taken = take_steps(loss, module, device, options)
    name = "ours" if is_ours else "plain"
    return Taken(name, *taken)


def take_steps(loss, module, device, options):
    """(seconds of the fastest step, peak bytes, FLOPs, loss of the first step)."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    with FlopCounterMode(display=False) as counter, set_checkpoint_early_stop(False):
        with flops_within(getattr(module, "blocks", ()), counter) as in_blocks:
            value = loss()
        value.backward()
        flops = counter.get_total_flops() - sum(in_blocks) * options.gradient_checkpointing
    seconds = []
    for step in range(1 + options.repeats):
        start = now(device)
        if step:
            loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(now(device) - start)
    return min(seconds[1:]), peak_bytes(device), flops, float(value.detach())


@contextmanager
def flops_within(modules, counter):
    """The FLOPs of each call of some modules, as a list that grows."""
    begun, counted = [], []
    hooks = []
    for module in modules:
        hooks.append(module.register_forward_pre_hook(lambda *_: begun.append(counter.get_total_flops())))
        hooks.append(module.register_forward_hook(lambda *_: counted.append(counter.get_total_flops() - begun.pop())))
    yield counted
    for hook in hooks:
        hook.remove()


def now(device):
    """Seconds, when all that was given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_bytes(device):
    """The most that tensors took on CUDA, else that this process had."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def matrix_rate(device_name, threads=None):
    """FLOPs a second of a large bf16 matrix product, the fastest of five."""
    device = torch.device(device_name)
    if threads:
        torch.set_num_threads(threads)
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    fastest = math.inf
    for _ in range(6):
        start = now(device)
        a @ b
        fastest = min(fastest, now(device) - start)
    return 2 * side**3 / fastest


def compare(options):
    """[ours, plain], each measured in a process of its own."""
    # glibc gives large blocks back at once and gets them again page by page: on a CPU that was up to a third of a step,
    # more or less by chance. For the processes to come it keeps them.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 36))
    return [in_fresh_process(measure, options, is_ours) for is_ours in (True, False)]


def in_fresh_process(function, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("dit", "vae"), required=True)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument(
        "--size", type=int, nargs=3, default=(17, 272, 272), metavar=("T", "H", "W"), help="of the clip"
    )
    parser.add_argument("--width", type=int, help="of the DiT (1536) or the VAE (96)")
    parser.add_argument("--hidden", type=int, default=WIDTHS["ffn_dim"], help="feed-forward width of the DiT")
    parser.add_argument("--num_blocks", type=int, default=30, help="blocks of the DiT; the 1.3B model has 30")
    parser.add_argument("--kind", choices=("lora", "dora"), default="dora", help="adapter of the DiT")
    parser.add_argument("--rank", type=int, help="of the DiT's adapter (32) or the decoders' LoRA (128)")
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--cap_gib", type=float, help="CUDA: refuse to use more than so many GiB")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps; the fastest counts")
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args(arguments)
    options.width = options.width or {"dit": WIDTHS["dim"], "vae": 96}[options.stage]
    options.rank = options.rank or {"dit": 32, "vae": 128}[options.stage]
    return options


def main():
    options = parse()
    rate = in_fresh_process(matrix_rate, options.device, options.threads)
    frames, height, width = options.size
    tokens = (frames + 3) // 4 * (height // 16) * (width // 16)
    parts = f"width {options.width}" + (
        f", {options.num_blocks} blocks, {options.kind}" if options.stage == "dit" else ""
    )
    title = f"{options.stage}, {frames}x{height}x{width}, {parts}, rank {options.rank}, {options.precision}"
    table = Table(title=f"{title}; {options.device}: {rate / 1e12:.2f} TFLOP/s in bf16 products")
    for heading in ("way", "seconds", "tokens/s", "peak GiB", "of the matrix rate", "first loss"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    taken = compare(options)
    for way in taken:
        share = min(way.flops for way in taken) / way.seconds / rate
        table.add_row(way.name, f"{way.seconds:.3f}", f"{tokens / way.seconds:.1f}", f"{way.peak / GIB:.2f}",
                      f"{share:.1%}", f"{way.loss:.5f}")  # fmt: skip
    Console(width=120).print(table)
    ours, plain = taken
    print(f"ours is {plain.seconds / ours.seconds:.2f} times as fast, with {ours.peak / plain.peak:.2f} times the peak")


if __name__ == "__main__":
    main()
