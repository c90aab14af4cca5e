"""Decoder LoRA: one convolution with weights composed per step, against a second convolution beside every first.

python tests/benchmarks/bench_decoder_lora.py --width 96 --size 64 --num_frames 9 --rank 128
"""

import copy

import torch
import torch.nn.functional as F
from diffsynth.models.wan_video_vae import CausalConv3d
from side_by_side import print_ways, random_vae, run_way, size_options
from torch import nn

from wan_alpha.models.decoder_lora import DecoderLoRA, WanDecoder, decoder_convolutions

LATENT_CHANNELS = 16


class TwoConv2d(nn.Module):
    """y = conv(x) + s*B(A(x))."""

    def __init__(self, conv, pair, scale):
        super().__init__()
        self.conv, self.pair, self.scale = conv, pair, scale

    def forward(self, x):
        down = F.conv2d(x, self.pair.lora_A, stride=self.conv.stride, padding=self.conv.padding)
        return self.conv(x) + self.scale * F.conv2d(down, self.pair.lora_B)


class TwoCausalConv3d(CausalConv3d):
    """As TwoConv2d. It is a CausalConv3d itself, so that diffsynth's decoder passes it the cached frames."""

    def __init__(self, conv, pair, scale):
        width, _, height, _, depth, _ = conv._padding
        padding = (depth // 2, height, width)
        shape = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding)
        super().__init__(*shape, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.down = CausalConv3d(conv.in_channels, pair.lora_A.shape[0], *shape[2:], bias=False, device="meta")
        self.down.weight = pair.lora_A
        self.lora_B, self.scale = pair.lora_B, scale

    def forward(self, x, cache_x=None):
        return super().forward(x, cache_x) + self.scale * F.conv3d(self.down(x, cache_x), self.lora_B)


def with_second_convolutions(vae, lora):
    """A copy of a VAE whose decoder runs every LoRA as a second convolution; weights and factors are shared."""
    vae = copy.deepcopy(vae, {id(parameter): parameter for parameter in vae.parameters()})
    convolutions = decoder_convolutions(vae.decoder)
    for name, pair in lora.named_pairs():
        conv = convolutions[name]
        kind = TwoCausalConv3d if isinstance(conv, CausalConv3d) else TwoConv2d
        parent, _, child = name.rpartition(".")
        setattr(vae.decoder.get_submodule(parent), child, kind(conv, pair, lora.alpha / lora.rank))
    return vae


def compare(width, size, num_frames, rank, repeats=1):
    """Both ways, forward and backward: [second convolution frame by frame, composed weights over the whole clip]."""
    vae = random_vae(width)
    generator = torch.Generator().manual_seed(1)
    lora = DecoderLoRA(vae.decoder, rank, generator=generator)
    for _, pair in lora.named_pairs():
        nn.init.normal_(pair.lora_B, std=0.1, generator=generator)
    latents = torch.randn(1, LATENT_CHANNELS, (num_frames + 3) // 4, size // 8, size // 8, generator=generator)
    beside, decoder = with_second_convolutions(vae, lora), WanDecoder(vae.decoder)
    identity = [torch.zeros(LATENT_CHANNELS), torch.ones(LATENT_CHANNELS)]

    def second_convolution(z):
        beside.clear_cache()
        return beside.decode(z, identity)

    def composed(z):
        return decoder.run(lora.compose(vae.decoder), vae.conv2(z))

    named = {"second convolution, frame groups": second_convolution, "composed weights, whole clip": composed}
    return [run_way(name, function, latents, True, repeats, [*lora.parameters()]) for name, function in named.items()]


def main():
    parser = size_options(__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=128, help="rank of the LoRA; the released one has 128")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    ways = compare(options.width, options.size, options.num_frames, options.rank, options.repeats)
    shape = f"width {options.width}, rank {options.rank}, {options.num_frames}x{options.size}x{options.size}"
    print_ways(f"Decoder with LoRA, forward and backward: {shape}, {torch.get_num_threads()} threads", ways)


if __name__ == "__main__":
    main()
