"""One training step through a block's linear layers: with LoRA, with PEFT's DoRA and with the factored DoRA.

python tests/benchmarks/bench_dora.py --width 1536 --hidden 8960 --num_tokens 128 --rank 32
"""

import argparse
import copy

import torch
from peft import LoraConfig, inject_adapter_in_model
from side_by_side import print_ways, run_way
from torch import nn

from wan_alpha.models.dora import use_factored_dora

TARGETS = ("0", "1", "2", "3", "up", "down")


class LinearLayers(nn.Module):
    """The linear layers of a DiT block that are adapted, one after the other: attention's four twice, feed-forward."""

    def __init__(self, width, hidden):
        super().__init__()
        self.attention = nn.ModuleList([nn.Linear(width, width) for _ in range(4)])
        self.cross_attention = nn.ModuleList([nn.Linear(width, width) for _ in range(4)])
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        for layer in (*self.attention, *self.cross_attention):
            x = x + layer(x)
        return x + self.down(nn.functional.gelu(self.up(x)))


def adapted(base, rank, use_dora, is_factored=False):
    """A copy of a base with a LoRA or DoRA in float32, away from its start."""
    network = copy.deepcopy(base).requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS), use_dora=use_dora)
        inject_adapter_in_model(config, network)
    if is_factored:
        use_factored_dora(network)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in network.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
        elif "lora_magnitude" in name:
            parameter.data = parameter.data.float()
    return network


def compare(width, hidden, num_tokens, rank, dtype=torch.float32, repeats=1):
    """Forward and backward: [LoRA, PEFT's DoRA, the factored DoRA]; below float32 under autocast."""
    torch.manual_seed(0)
    base = LinearLayers(width, hidden).to(dtype)
    x = torch.randn(1, num_tokens, width)
    kinds = {"LoRA": (False,), "DoRA of PEFT": (True,), "DoRA, factored": (True, True)}
    ways = []
    for name, kind in kinds.items():
        network = adapted(base, rank, *kind)

        def step(value, network=network):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
                return network(value).float()

        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        ways.append(run_way(name, step, x, True, repeats, parameters))
    return ways


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--width", type=int, default=1536, help="width of the DiT; the 1.3B model has 1536")
    parser.add_argument("--hidden", type=int, default=8960, help="width of the feed-forward; the 1.3B model has 8960")
    parser.add_argument("--num_tokens", type=int, default=128, help="tokens of the clip")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each way; the fastest counts")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: PyTorch's choice)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    shape = f"{options.width}/{options.hidden}, {options.num_tokens} tokens, rank {options.rank}"
    for dtype in (torch.float32, torch.bfloat16):
        ways = compare(options.width, options.hidden, options.num_tokens, options.rank, dtype, options.repeats)
        name = str(dtype).removeprefix("torch.")
        # PEFT's DoRA first: what the differences are taken from, and the speed.
        print_ways(f"A block's linear layers, {name}: {shape}, {torch.get_num_threads()} threads", ways[1:])
        lora, *doras = (way.seconds for way in ways)
        print(f"LoRA {lora:.3f} s; PEFT's DoRA {doras[0] / lora:.2f}, factored DoRA {doras[1] / lora:.2f} times that")


if __name__ == "__main__":
    main()
