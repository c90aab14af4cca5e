"""The exponential moving average of the trained weights; of sharded ones, each process averages its part."""

import contextlib

import torch

from wan_alpha.training.sharding import local


def decay_at(num_updates, decay):
    """Weight of the old average at an update: min(decay, (1 + n) / (10 + n)), n updates before it.

    The first updates move fast, so that the start's random weights are soon forgotten (as in TensorFlow's
    ExponentialMovingAverage with ``num_updates``).
    """
    return min(decay, (1 + num_updates) / (10 + num_updates))


class WeightAverage:
    """average <- d * average + (1 - d) * weight, after each update, in float32.

    Args:
        parameters: name -> parameter; decay: d, reached after a warm-up, see :func:`decay_at`.
        on_cpu: keep the average in host memory: no device memory, a copy of the weights over the bus each step.
    """

    def __init__(self, parameters, decay, on_cpu=False):
        self.parameters, self.decay = parameters, decay
        self._device = torch.device("cpu") if on_cpu else None
        self._averages = {name: self._copied(parameter) for name, parameter in parameters.items()}

    def _copied(self, parameter):
        return local(parameter.detach()).to(self._device or parameter.device, torch.float32, copy=True)

    @torch.no_grad()
    def update(self, num_updates):
        """Take the weights in, after an update that ``num_updates`` went before."""
        share = 1 - decay_at(num_updates, self.decay)
        averages = list(self._averages.values())
        weights = [local(parameter.detach()).to(average) for parameter, average in zip(
            self.parameters.values(), averages, strict=True)]  # fmt: skip
        torch._foreach_lerp_(averages, weights, share)

    @contextlib.contextmanager
    def in_place_of_weights(self):
        """Within, the parameters hold the average; after, what they held before, to the bit."""
        trained = {name: self._copied(parameter) for name, parameter in self.parameters.items()}
        self._fill(self._averages)
        try:
            yield
        finally:
            self._fill(trained)

    @torch.no_grad()
    def _fill(self, tensors):
        for name, parameter in self.parameters.items():
            local(parameter.detach()).copy_(tensors[name])

    def tensors(self):
        """Name -> average; of a sharded parameter, this process's part."""
        return dict(self._averages)

    def load(self, tensors):
        """Take up averages that :meth:`tensors` gave."""
        for name, average in self._averages.items():
            average.copy_(tensors[name])
