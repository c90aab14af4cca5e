"""Rows, an operator and a seed: samples that depend on (seed, epoch, index) and on nothing else."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence

import torch
from torch.utils.data import Dataset

from wan_alpha.data.buckets import Bucket
from wan_alpha.data.manifest import Row
from wan_alpha.data.mixture import Mixture, Part
from wan_alpha.data.sampling import derive_seed
from wan_alpha.errors import ConfigError, DataError


class RGBAVideoDataset(Dataset):
    """`rows` through `operator`, `repeat` times over.

    A sample's every random choice follows from (seed, epoch, index), so it does not matter which worker makes it, in
    which order, or whether the run was resumed. To keep decoded clips in memory, build the operator with
    `cache_clips=True`.

    Args:
        rows: from manifest.read_manifest.
        operator: called with {"row": Row, "sample_seed": int}; LoadRGBAVideoPair, alone or followed by renders.
        repeat: how often each row occurs in an epoch; the repeats differ where the operator is random.
        seed: of the run.
        mixture: in place of repeat, how often each row occurs in an epoch.
        shapes: Bucket of each row, which the operator gets as "shape" and which says what fits into one batch; None
            for the operator's own.
        summary: tables that a run begins with.

    Raises:
        ConfigError: no rows, or repeat below 1.
        DataError: (from indexing) a row's files are bad; row number and file are named. Nothing is put in its place.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        operator: Callable[[dict], dict],
        repeat: int = 1,
        seed: int = 0,
        *,
        mixture: Mixture | None = None,
        shapes: Sequence[Bucket] | None = None,
        summary: str = "",
    ):
        if not rows:
            raise ConfigError("a dataset needs at least one row")
        if repeat < 1:
            raise ConfigError(f"repeat = {repeat} must be at least 1")
        self.rows = list(rows)
        self.operator = operator
        self.seed = seed
        self.mixture = mixture or Mixture([Part("clips", len(self.rows), repeat)], seed)
        self.shapes = None if shapes is None else list(shapes)
        self._summary = summary
        # In shared memory, so that set_epoch reaches workers that live on from one epoch to the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def summary(self) -> str:
        """What a run says at its start."""
        return self._summary

    def epoch_samples(self, epoch: int) -> Sequence[int]:
        """The indices of the samples of an epoch."""
        return self.mixture.epoch_samples(epoch)

    def group_of(self, index: int) -> Bucket | None:
        """Samples of one group have one shape."""
        return None if self.shapes is None else self.shapes[self.mixture.clip(index)]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose samples are made from now on, counted from 0."""
        self._epoch.fill_(epoch)

    def fingerprint(self) -> dict[str, str]:
        """What the samples are made of, each by a hash, in the rows' order.

        The clips: their files below the folder that they share, captions and kinds. The files themselves: their bytes
        are counted, not read, so that a start costs a look at each; a file that was changed to as many bytes passes.
        And the bucket of each clip.
        """
        base = os.path.commonpath([file.parent for row in self.rows for file in row.files])
        rows = [
            [*(os.path.relpath(file, base) for file in row.files), *row.captions, row.kind, *row.reading.values()]
            for row in self.rows
        ]
        sizes = [[count_bytes(file) for file in row.files] for row in self.rows]
        parts = {"clips": rows, "the clips' files": sizes, "the clips' buckets": list(map(str, self.shapes or ()))}
        return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, index: int) -> dict:
        return self.sample(int(self._epoch), index)

    def sample(self, epoch: int, index: int) -> dict:
        """The sample of an epoch, whichever `set_epoch` chose."""
        clip = self.mixture.clip(index)
        row = self.rows[clip]
        data = {"row": row, "sample_seed": derive_seed(self.seed, epoch, index)}
        if self.shapes is not None:
            data["shape"] = self.shapes[clip]
        try:
            return self.operator(data)
        except DataError as error:
            raise DataError(f"row {row.index} ({row.foreground.name}): {error}") from error


def count_bytes(path) -> tuple[int, int]:
    """(files, bytes in all) of a clip's file, or of its folder of frames.

    Raises:
        DataError: it is not there.
    """
    try:
        if not os.path.isdir(path):
            return 1, os.stat(path).st_size
        with os.scandir(path) as entries:
            sizes = [entry.stat().st_size for entry in entries if entry.is_file()]
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at: {error.strerror}") from error
    return len(sizes), sum(sizes)


def collate(samples: Sequence[dict]) -> dict:
    """Samples of one batch: tensors are stacked (B, ...), numbers become a (B,) tensor, all else a list.

    Raises:
        DataError: tensors of one name differ in shape.
    """
    batch = {}
    for name, first in samples[0].items():
        values = [sample[name] for sample in samples]
        if isinstance(first, torch.Tensor):
            shapes = {tuple(value.shape) for value in values}
            if len(shapes) > 1:
                raise DataError(f"{name}: samples of one batch must have one shape, got {sorted(shapes)}")
            batch[name] = torch.stack(values) if len(values) > 1 else first[None]  # a clip is large to copy
        elif isinstance(first, (int, float)):
            batch[name] = torch.tensor(values)
        else:
            batch[name] = values
    return batch
