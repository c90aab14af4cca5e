"""Several datasets as one: how often each clip occurs in an epoch, and which sample is which clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from wan_alpha.data.sampling import seeded_generator
from wan_alpha.data.tables import text_table
from wan_alpha.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """One dataset of a mixture.

    Attributes:
        name: for messages; num_clips: at least 1; repeat: times each clip occurs, each with its own randomness.
        weight: its share of an epoch, relative to the others'; None where shares follow from the numbers of clips.
    """

    name: str
    num_clips: int
    repeat: int = 1
    weight: float | None = None


class Mixture:
    """Samples of an epoch, by index; an index is always the same clip.

    Without weights an epoch holds each clip ``repeat`` times. With weights the shares of the parts are theirs: one part
    holds each clip ``repeat`` times, the others more often, as many whole times as fit and some clips once more, which
    ones is drawn for each epoch. So no clip is ever missing, and all epochs are equally long.

    Args:
        parts: with weights in all or in none; seed: of what is drawn.

    Raises:
        ConfigError: no part, a part without clips, or weights in some parts only.

    Attributes:
        samples: of an epoch, of each part.
    """

    def __init__(self, parts: Sequence[Part], seed: int = 0):
        for part in parts:
            if part.num_clips < 1 or part.repeat < 1:
                raise ConfigError(f"{part.name}: {part.num_clips} clips, repeat {part.repeat}: each must be at least 1")
        weights = [part.weight for part in parts if part.weight is not None]
        if not parts or len(weights) not in (0, len(parts)):
            raise ConfigError("a mixture needs parts, and weights in all of them or in none")
        self.parts, self.seed = tuple(parts), seed
        self._once = [part.num_clips * part.repeat for part in parts]
        self.samples = list(self._once)
        if weights:
            scale = max(once / weight for once, weight in zip(self._once, weights, strict=True))
            self.samples = [max(once, round(scale * weight)) for once, weight in zip(self._once, weights, strict=True)]
        self._rounds = [-(-count // once) for count, once in zip(self.samples, self._once, strict=True)]
        self._ends = list(accumulate(once * rounds for once, rounds in zip(self._once, self._rounds, strict=True)))
        self._first_clips = [0, *accumulate(part.num_clips for part in parts)]

    def __len__(self) -> int:
        """Indices in use, over all epochs."""
        return self._ends[-1]

    def clip(self, index: int) -> int:
        """The clip of a sample, counted through all parts."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a dataset of {len(self)}")
        number = next(number for number, end in enumerate(self._ends) if index < end)
        start = self._ends[number - 1] if number else 0
        return self._first_clips[number] + (index - start) % self.parts[number].num_clips

    def epoch_samples(self, epoch: int) -> Sequence[int]:
        """The indices of an epoch, in no particular order."""
        if self.samples == self._once:
            return range(len(self))
        indices, start = [], 0
        for number, (count, once, end) in enumerate(zip(self.samples, self._once, self._ends, strict=True)):
            whole = count // once * once
            indices += range(start, start + whole)
            drawn = torch.randperm(once, generator=seeded_generator(self.seed, epoch, number, "once more"))
            indices += (start + whole + drawn[: count - whole]).tolist()
            start = end
        return indices


def share_table(mixture: Mixture) -> list[str]:
    """[the table of a mixture's shares]; [] for a single dataset."""
    if len(mixture.parts) == 1:
        return []
    total = sum(mixture.samples)
    rows = [
        [part.name, part.num_clips, part.repeat, "-" if part.weight is None else f"{part.weight:g}", samples]
        + [f"{samples / total:.1%}"]
        for part, samples in zip(mixture.parts, mixture.samples, strict=True)
    ]
    return [text_table(["dataset", "clips", "repeat", "weight", "samples an epoch", "share"], rows)]
