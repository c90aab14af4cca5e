"""A toy regression whose noise comes from each sample's seed, as in the real stages."""

import torch

from wan_alpha.data.dataset import collate  # noqa: F401 (the toy's batches are made as the real ones)
from wan_alpha.data.sampling import derive_seed


class ToyDataset:
    """y = x W with x from the index; ``noise_seed`` decides what the module adds."""

    def __init__(self, length=10, seed=0):
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return {"x": x, "y": x.flip(0) * 2, "sample_seed": derive_seed(self.seed, self.epoch, index)}


class ToyModule(torch.nn.Module):
    """Two layers, one frozen; fails or gives NaN at chosen calls."""

    def __init__(self, fail_at=None, nan_at=()):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = torch.nn.Linear(4, 6)
        self.frozen = torch.nn.Linear(6, 6).requires_grad_(False)
        self.last = torch.nn.Linear(6, 4)
        self.dropout = torch.nn.Dropout(0.1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        self.calls, self.fail_at, self.nan_at = 0, fail_at, nan_at

    def forward(self, batch):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        noise = torch.stack(
            [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in batch["sample_seed"].tolist()]
        )
        prediction = self.last(self.dropout(torch.tanh(self.frozen(self.first(batch["x"] + 0.1 * noise)))))
        error = (prediction - batch["y"]).pow(2).mean()
        if self.calls in self.nan_at:
            error = error * float("nan")
        return {"total": error, "noise_level": noise.abs().mean()}


def error_without_dropout(module):
    """A validation that must leave training as it was."""
    torch.rand(3)
    return {"weight_norm": module.first.weight.norm()}
