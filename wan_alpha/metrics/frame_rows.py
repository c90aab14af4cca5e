"""Numbers per frame, kept in one block that grows: small pieces kept between large ones would scatter the memory."""

import torch
from torch import Tensor

FIRST_CAPACITY = 256


class FrameRows:
    """Values (..., T) of frames, appended part by part along T."""

    def __init__(self):
        self._block, self._num_frames = None, 0

    def append(self, values: Tensor) -> None:
        """Add the frames of values, (..., T) float64 on the CPU, of one shape but for T."""
        end = self._num_frames + values.shape[-1]
        if self._block is None or end > self._block.shape[-1]:
            block = torch.empty(*values.shape[:-1], max(FIRST_CAPACITY, 2 * end), dtype=torch.float64)
            if self._block is not None:
                block[..., : self._num_frames] = self.values
            self._block = block
        self._block[..., self._num_frames : end] = values
        self._num_frames = end

    @property
    def values(self) -> Tensor:
        """All of them; a view."""
        return self._block[..., : self._num_frames]

    def __len__(self):
        return self._num_frames
