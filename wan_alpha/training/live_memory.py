"""The bytes of tensors that are alive, followed operation by operation; over fake tensors nothing is computed.

What is counted is what ``torch.cuda.max_memory_allocated`` counts, but for what a kernel allocates for itself while it
runs (cuDNN's workspaces) and for the rounding of each block to 512 bytes.
"""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Follows every storage that an operation returns, from then until nobody holds it any more.

    Attributes:
        now: bytes alive; peak: the most since the start, or since :meth:`reset_peak`.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._sizes = {}

    def note(self, tensor):
        """Count a tensor that no operation made here."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def reset_peak(self):
        """Begin anew; returns the peak so far."""
        peak, self.peak = self.peak, self.now
        return peak

    def _forget(self, key):
        self.now -= self._sizes.pop(key)

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.note(leaf)
        return result
