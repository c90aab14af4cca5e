"""A mode under which a tensor of float64 or of complex numbers cannot be made, as on Apple's MPS."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class ForbidWide(TorchDispatchMode):
    """Refuses every operation that makes a float64 or complex tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and (tensor.is_complex() or tensor.dtype == torch.float64):
                raise AssertionError(f"{func} made {tensor.dtype}")
        return result
