"""Forward and backward of a block of the DiT: with LoRA, with PEFT's DoRA and with the factored DoRA.

python tests/benchmarks/bench_dora.py --width 1536 --hidden 8960 --num_heads 12 --num_tokens 2048 --rank 32
"""

import argparse
import copy
import time

import torch
from diffsynth.models.wan_video_dit import DiTBlock
from peft import LoraConfig, inject_adapter_in_model
from side_by_side import print_ways, run_way

from wan_alpha.models.adapters import DEFAULT_TARGETS, cast_inputs_once
from wan_alpha.models.dora import use_factored_dora

NUM_TEXT_TOKENS = 512


def adapted(base, rank, use_dora, is_ours):
    """A copy of a base with a LoRA or DoRA in float32, away from its start; ours: as ``add_adapter`` leaves it."""
    network = copy.deepcopy(base).requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(DEFAULT_TARGETS), use_dora=use_dora)
        inject_adapter_in_model(config, network)
    if is_ours:
        use_factored_dora(network)
        cast_inputs_once(network)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in network.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
        elif "lora_magnitude" in name:
            parameter.data = parameter.data.float()
    return network


def compare(width, hidden, num_heads, num_tokens, rank, dtype=torch.float32, repeats=1):
    """Forward and backward, processor time: [LoRA, PEFT's DoRA, the factored DoRA]; below float32 under autocast."""
    torch.manual_seed(0)
    base = DiTBlock(False, width, num_heads, hidden).to(dtype)
    x, context = torch.randn(1, num_tokens, width), torch.randn(1, NUM_TEXT_TOKENS, width).to(dtype)
    modulation = 0.1 * torch.randn(1, 6, width).to(dtype)
    angles = torch.rand(num_tokens, 1, width // num_heads // 2, dtype=torch.float64)
    rotations = torch.polar(torch.ones_like(angles), angles)
    kinds = {"LoRA": (False, True), "DoRA of PEFT": (True, False), "DoRA, factored": (True, True)}
    networks = {name: adapted(base, rank, *kind) for name, kind in kinds.items()}
    timed = {name: [] for name in kinds}
    for _ in range(repeats):  # in turn, so that what else the machine does is shared out
        for name, network in networks.items():

            def step(value, network=network):
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
                    return network(value.to(dtype), context, modulation, rotations).float()

            parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
            timed[name].append(run_way(name, step, x, True, 1, parameters, time.process_time))
    return [min(ways, key=lambda way: way.seconds) for ways in timed.values()]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--width", type=int, default=1536, help="width of the DiT; the 1.3B model has 1536")
    parser.add_argument("--hidden", type=int, default=8960, help="width of the feed-forward; the 1.3B model has 8960")
    parser.add_argument("--num_heads", type=int, default=12, help="heads of attention; the 1.3B model has 12")
    parser.add_argument("--num_tokens", type=int, default=2048, help="tokens of the clip")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each way; the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="of the frozen base")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = (options.width, options.hidden, options.num_heads, options.num_tokens, options.rank)
    ways = compare(*sizes, getattr(torch, options.dtype), options.repeats)
    shape = f"{options.width}/{options.hidden}, {options.num_tokens} tokens, rank {options.rank}"
    # PEFT's DoRA first: what the differences are taken from, and the speed.
    print_ways(f"A block of the DiT, {options.dtype}: {shape}, {options.threads} threads, processor time", ways[1:])
    lora, *doras = (way.seconds for way in ways)
    print(f"LoRA {lora:.3f} s; PEFT's DoRA {doras[0] / lora:.2f}, factored DoRA {doras[1] / lora:.2f} times that")


if __name__ == "__main__":
    main()
