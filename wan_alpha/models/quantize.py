"""The frozen linear layers of a model's blocks in 8 or 4 bits, through diffsynth's quantisation."""

import sys
from contextlib import redirect_stdout

import torch
from diffsynth.core.quant import QuantizeConfig
from torch import nn

from wan_alpha.errors import ConfigError
from wan_alpha.models.dora import squared_row_norms
from wan_alpha.models.precision import in_autocasts_type

# Weight-only: activations and gradients keep the precision of the run, which a gradient has to pass through.
METHODS = {"fp8": "torchao_fp8_w8a16", "int8": "torchao_int8_w8a16", "nf4": "bitsandbytes_nf4"}
PACKAGES = {"fp8": "torchao>=0.16", "int8": "torchao>=0.16", "nf4": "bitsandbytes>=0.46"}


def check_quantization(name):
    """Raises:
    ConfigError: the package that quantises so is not there.
    """
    make_config(name, [])


def quantize_base(model, name, device, keep_on=None):
    """Quantise the frozen linear layers of a model's blocks, adapted or not; adapters beside them stay as they are.

    Embeddings, the time projection, the head, norms, biases and modulations keep their type: they are few, and all
    that the blocks compute passes through them. A DoRA's magnitudes stay the row norms of the exact weights, so that an
    adapter trained here is at home on the exact base too; only the norms that it divides by become the quantised ones.

    Args:
        model: a ``WanModel`` or ``WanTextEncoder``, changed in place, layer by layer: the device holds one exact weight
            at a time.
        name: "fp8", "int8" or "nf4"; device: where weights are quantised; keep_on: where they go then, None stays.

    Raises:
        ConfigError: as :func:`check_quantization`.
    """
    names = frozen_linears(model)
    config = make_config(name, names)
    with redirect_stdout(sys.stderr):
        config.quantize_model(model, compute_device=device, model_device=keep_on)
    for layer_name in names:
        layer = model.get_submodule(layer_name)
        layer.register_forward_pre_hook(_take_autocasts_type)
        # On CPUs with AVX-512 bitsandbytes repacks a weight when it is evaluated; no gradient passes it from then on.
        layer.support_avx512bf16_for_cpu = False
        adapted = model.get_submodule(layer_name.removesuffix(".base_layer"))
        for magnitude in getattr(adapted, "lora_magnitude_vector", {}).values():
            exact = config.backend.dequantize_to_linear(layer, torch.float32).weight
            magnitude.base_norm2.copy_(squared_row_norms(exact))


def frozen_linears(model):
    """Names of the linear layers within the blocks whose weights do not train."""
    return [
        f"blocks.{name}"
        for name, module in model.blocks.named_modules()
        if isinstance(module, nn.Linear) and not module.weight.requires_grad
    ]


def make_config(name, targets):
    """diffsynth's QuantizeConfig for layers of these names; raises as :func:`check_quantization`."""
    try:
        with redirect_stdout(sys.stderr):
            return QuantizeConfig(method=METHODS[name], target_modules=targets)
    except ImportError as error:
        raise ConfigError(
            f"model.quantization = {name!r} needs a package that is not installed, or of a version that diffsynth does "
            f'not know: pip install "{PACKAGES[name]}"'
        ) from error


def _take_autocasts_type(layer, inputs):
    """Autocast knows nn.Linear's operation, not those of a quantised layer, whose output has its input's type."""
    return tuple(map(in_autocasts_type, inputs))
