"""A copy in host memory of what a checkpoint holds, so that training can go on while the copy is written."""

import torch


class HostCopy:
    """Buffers in host memory, allocated once (page-locked for CUDA's sake) and filled again for each checkpoint."""

    def __init__(self):
        self._buffers = {}

    @torch.no_grad()
    def take(self, files):
        """Copy tensors; the copy is whole when this returns, and valid until the next call.

        Args:
            files: file name -> (name -> tensor, metadata).

        Returns:
            the same with the copies.
        """
        copied = {
            file: ({name: self._fill((file, name), tensor) for name, tensor in tensors.items()}, metadata)
            for file, (tensors, metadata) in files.items()
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return copied

    def _fill(self, key, tensor):
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[key] = buffer
        return buffer.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
