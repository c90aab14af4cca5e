"""Modules whose activations are computed again in the backward pass instead of being kept."""

from diffsynth.core import gradient_checkpoint_forward
from torch import nn


class Checkpointed(nn.Module):
    """Stands for a module: the same output and gradients, keeping for the backward pass what goes in alone."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *inputs, **options):
        return gradient_checkpoint_forward(self.module, True, False, *inputs, **options)
