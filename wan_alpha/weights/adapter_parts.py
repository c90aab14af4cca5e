"""What an adapter holds of one layer, whichever file it came from."""

from dataclasses import dataclass

from torch import Tensor, kron


@dataclass(frozen=True)
class LowRank:
    """W + scale * up @ down, and DoRA's row magnitudes if it has them.

    Attributes:
        down: A, (rank, in, ...); up: B, (out, rank, ...).
        scale: alpha / rank, or alpha / sqrt(rank) where PEFT's use_rslora says so.
        magnitude: m, (out,), or None for LoRA.
    """

    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None

    @property
    def rank(self):
        return self.down.shape[0]

    @property
    def shape(self):
        """Shape of the weight that it changes."""
        return (self.up.shape[0], *self.down.shape[1:])

    def update(self, device="cpu"):
        """scale * B @ A, of the weight's shape, float32."""
        down, up = (tensor.to(device).float().flatten(1) for tensor in (self.down, self.up))
        return self.scale * (up @ down).view(self.shape)


@dataclass(frozen=True)
class Kronecker:
    """LoKr: W + scale * kron(w1, w2), either factor whole or itself of low rank (Yeh et al. 2024).

    Attributes:
        factors: "lokr_w1", or "lokr_w1_a" (rows, rank) and "lokr_w1_b" (rank, columns); the same of w2.
        scale: as in :class:`LowRank`.
        magnitude: row magnitudes, (out,), or None.
    """

    factors: dict[str, Tensor]
    scale: float
    magnitude: Tensor | None = None

    @property
    def rank(self):
        """Inner size of the factor that is of low rank; None where both are whole."""
        inner = [self.factors[name].shape[0] for name in ("lokr_w1_b", "lokr_w2_b") if name in self.factors]
        return inner[-1] if inner else None

    def sides(self):
        """((rows, columns) of w1, of w2)."""
        return tuple(self._side(name) for name in ("lokr_w1", "lokr_w2"))

    @property
    def shape(self):
        """Shape of the weight that it changes."""
        first, second = self.sides()
        return (first[0] * second[0], first[1] * second[1])

    def update(self, device="cpu"):
        """scale * kron(w1, w2), of the weight's shape, float32."""
        return self.scale * kron(*(self._whole(name, device) for name in ("lokr_w1", "lokr_w2")))

    def _side(self, name):
        if name in self.factors:
            return tuple(self.factors[name].shape)
        return self.factors[f"{name}_a"].shape[0], self.factors[f"{name}_b"].shape[1]

    def _whole(self, name, device):
        if name in self.factors:
            return self.factors[name].to(device).float()
        return self.factors[f"{name}_a"].to(device).float() @ self.factors[f"{name}_b"].to(device).float()
