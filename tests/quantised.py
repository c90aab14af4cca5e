"""Ways to quantise that tests go through: diffsynth's, where their package is there, and a plain one that always is.

The plain one rounds each row to fifteen steps and is registered as any backend of diffsynth's is.
"""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from diffsynth.core.quant import BackendConfig, QuantBackend, register_quant_backend, register_quant_method
from torch import nn

from wan_alpha.models import quantize

LEVELS = 7


class RoundedLinear(nn.Linear):
    """Weight int8 in [-7, 7]; what a row was divided by beside it."""

    def exact(self, dtype):
        return (self.weight * self.scale).to(dtype)

    def forward(self, x):
        return F.linear(x, self.exact(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


@register_quant_backend("rounded")
class RoundedBackend(QuantBackend):
    def quantized_linear_classes(self):
        return (RoundedLinear,)

    def create_quantized_linear(self, linear, compute_device=None, model_device=None):
        layer = RoundedLinear(linear.in_features, linear.out_features, device="meta")
        weight = linear.weight.detach().to(compute_device).float()
        scale = weight.abs().amax(dim=1, keepdim=True) / LEVELS
        layer.weight = nn.Parameter((weight / scale).round().to(torch.int8), requires_grad=False)
        layer.register_buffer("scale", scale)
        layer.bias = linear.bias
        return layer if model_device is None else layer.to(model_device)

    def dequantize_to_linear(self, module, compute_dtype, compute_device=None, model_device=None):
        linear = nn.Linear(module.in_features, module.out_features, device="meta")
        linear.weight = nn.Parameter(module.exact(compute_dtype), requires_grad=False)
        linear.bias = module.bias
        return linear


register_quant_method("rounded_int4", "rounded", BackendConfig.from_kwargs)

PLAIN = "plain"
NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed"))
    for name, package in ((PLAIN, "torch"), ("fp8", "torchao"), ("int8", "torchao"), ("nf4", "bitsandbytes"))
]


def use_plain_as(name, monkeypatch):
    """Let a name of ``model.quantization`` mean the plain way, without a package."""
    monkeypatch.setitem(quantize.METHODS, name, "rounded_int4")
