"""Autocast to bf16 as a device would do it, over tensors that are on none.

Fake tensors are taken for the CPU's, whose autocast leaves in bf16 what CUDA's computes in float32 ("CUDA Op-Specific
Behavior" in PyTorch's notes on automatic mixed precision): norms and sums of squares, whose results a backward pass
then keeps at twice the size.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch.autograd import Variable
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# As Python calls them; of CUDA's list, those that the CPU's has not.
_FLOAT32_ON_CUDA = frozenset(
    "acos asin cosh cumprod cumsum exp expm1 group_norm layer_norm log log10 log1p log2 log_softmax logsumexp norm "
    "normalize pow __pow__ prod reciprocal rsqrt sinh smooth_l1_loss softmax softplus square sum tan".split()
)


@contextmanager
def autocast_rules(device_type):
    """Within, an autocast of the CPU computes in float32 what that of ``device_type`` ("cuda", "mps", "cpu") would."""
    with _Float32Rules() if device_type == "cuda" else nullcontext():
        yield


def backward_under_rules(loss):
    """``loss.backward()``, which would leave the rules behind: what it calls is not followed, recomputed blocks are."""
    Variable._execution_engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


class _Float32Rules(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        if getattr(function, "__name__", "") in _FLOAT32_ON_CUDA and torch.is_autocast_enabled("cpu"):
            arguments, options = tree_map(_as_float32, (arguments, options))
        return function(*arguments, **options)


def _as_float32(value):
    is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value
