"""Where a run stands. All of it is in a checkpoint's state file; tensors are beside it."""

from dataclasses import dataclass, field, fields

from wan_alpha.training.order import count_samples


@dataclass
class RunState:
    """JSON values only.

    Attributes:
        step: optimizer steps done; epoch, position: passes over the data, and samples of the present one, done.
        cuts: [step size, samples] of the present epoch's parts that are done; more than one where a run went on with
            another number of processes.
        step_size, num_processes: samples of a step, in all processes together; 0 in a state of an earlier version.
        skipped_updates, skipped_in_a_row: steps whose loss or gradient was not finite.
        recent_losses: of the last steps, finite ones.
        best: {"step", "value", "name" of the figure, "best_is"} of the best validation so far, or None.
        dataset: what the data is made of; base: option -> {"file", "sha256"} of the weights that are not trained.
        exported: files of the final weights, below the output folder.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    cuts: list[list[int]] = field(default_factory=list)
    step_size: int = 0
    num_processes: int = 0
    skipped_updates: int = 0
    skipped_in_a_row: int = 0
    recent_losses: list[float] = field(default_factory=list)
    best: dict | None = None
    dataset: dict = field(default_factory=dict)
    base: dict[str, dict[str, str]] = field(default_factory=dict)
    exported: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values):
        """The state in a checkpoint's state file; what an earlier version did not write has its default."""
        return cls(**{item.name: values[item.name] for item in fields(cls) if item.name in values})

    @property
    def num_updates(self):
        """Updates that were made, and not skipped."""
        return self.step - self.skipped_updates

    def advance(self, num_samples, epoch_length):
        """Count a step of ``num_samples``; an epoch of ``epoch_length`` samples may end with it."""
        self.step += 1
        self.position += num_samples
        self.cuts = count_samples(self.cuts, self.step_size, num_samples)
        if self.position == epoch_length:
            self.epoch, self.position, self.cuts = self.epoch + 1, 0, []
