"""Ways to compute the same thing, timed one after the other and compared; shared by the benchmarks here."""

import argparse
import time
from dataclasses import dataclass

import torch
from diffsynth.models.wan_video_vae import VideoVAE_
from rich.console import Console
from rich.table import Table
from torch import Tensor


@dataclass
class Way:
    """What one way took and gave: seconds of the fastest run, output, and all gradients in one row (or None)."""

    name: str
    seconds: float
    output: Tensor
    gradient: Tensor | None


def run_way(name, function, value, backward, repeats=1, parameters=(), clock=time.perf_counter):
    """Time function(value), with the backward pass of its mean square where asked.

    Args:
        value: the input; parameters: what else takes part. Their gradients are compared.
        repeats: timed runs; the fastest counts. clock: () -> seconds.
    """
    seconds = []
    for _ in range(repeats):
        x = value.clone().requires_grad_(backward)
        leaves = [x, *parameters]
        for leaf in leaves:
            leaf.grad = None
        start = clock()
        with torch.set_grad_enabled(backward):
            output = function(x)
            if backward:
                output.square().mean().backward()
        seconds.append(clock() - start)
    gradient = torch.cat([leaf.grad.flatten() for leaf in leaves]) if backward else None
    return Way(name, min(seconds), output.detach(), gradient)


def differences(way, reference):
    """Largest difference of the outputs, and of the gradients relative to the largest gradient (None without)."""
    output = (way.output - reference.output).abs().max().item()
    if way.gradient is None:
        return output, None
    gradient = (way.gradient - reference.gradient).abs().max() / reference.gradient.abs().max()
    return output, gradient.item()


def print_ways(title, ways):
    """A table of seconds, the speed relative to the first way, and the differences from it."""
    table = Table(title=title)
    for heading in ("way", "seconds", "times faster", "largest difference", "relative gradient difference"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in ways:
        output, gradient = differences(way, ways[0])
        shown = "" if gradient is None else f"{gradient:.1e}"
        table.add_row(way.name, f"{way.seconds:.2f}", f"{ways[0].seconds / way.seconds:.2f}", f"{output:.1e}", shown)
    Console(width=120).print(table)


def random_vae(width, seed=0):
    """A ``VideoVAE_`` whose random convolutions keep the variance of what passes through them."""
    vae = VideoVAE_(dim=width, z_dim=16).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in vae.parameters():
        if parameter.dim() > 3 and parameter.shape[1:].numel() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
    return vae


def size_options(description):
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--width", type=int, default=96, help="base channels of the VAE; the released one has 96")
    parser.add_argument("--size", type=int, default=64, help="height and width of the video, pixels, a multiple of 8")
    parser.add_argument("--num_frames", type=int, default=9, help="frames, 4n+1")
    parser.add_argument("--repeats", type=int, default=1, help="timed runs of each way; the fastest counts")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: PyTorch's choice)")
    return parser
