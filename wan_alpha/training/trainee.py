"""What a run trains: a module's parameters, their optimizer and average; loaded, saved and exported as files."""

from pathlib import Path

from wan_alpha.errors import ConfigError
from wan_alpha.training.checkpoints import (
    checkpoint_tensors,
    load_checkpoint,
    sharded_checkpoint_tensors,
    trained_parameters,
)
from wan_alpha.training.ema import WeightAverage
from wan_alpha.training.optimizers import OwnAverage, has_own_average, make_optimizer
from wan_alpha.training.sharding import check_can_be_sharded, gathered_on_main, mesh_sizes, shard
from wan_alpha.training.validation import averaged_for


class Trainee:
    """A module made ready to be trained, as float32.

    Args:
        module: whose parameters with requires_grad are trained; accelerator: of the run; settings: TrainingSettings.

    Attributes:
        model: the module as the processes share it (DDP or FSDP2), to be called; module: as it was given.
        in_shards: whether its weights are in shards over the processes.
        parameters: name -> parameter; optimizer: theirs; average: a WeightAverage, or None.
        shown_average: what validation and export may use: ``average``, a schedule-free optimizer's own, or None.

    Raises:
        ConfigError: nothing is trained, or what is asked for cannot be in shards.
    """

    def __init__(self, module, accelerator, settings):
        self.module, self.accelerator, self.settings = module, accelerator, settings
        sizes = mesh_sizes(accelerator.num_processes)
        # What does not say how to be sharded is replicated: the VAE of stage 1.
        self.in_shards = sizes is not None and hasattr(module, "shard_units")
        if self.in_shards:
            check_can_be_sharded(settings)
        if not trained_parameters(module):
            raise ConfigError("nothing to train: no parameter of the model is trainable with these settings")
        for parameter in trained_parameters(module).values():
            # In bfloat16 an update of 1e-5 on a weight of 0.05 rounds to nothing.
            parameter.data = parameter.data.float()
        if self.in_shards:
            self.model = shard(module, accelerator.device, sizes)
        else:
            self.model = accelerator.prepare_model(module)
        self.parameters = trained_parameters(module)
        self.optimizer = make_optimizer(settings, self.parameters.values())
        self.average = None
        if settings.ema_decay is not None:
            self.average = WeightAverage(self.parameters, settings.ema_decay, settings.ema_on_cpu)
        own_average = OwnAverage(self.optimizer, self.parameters) if has_own_average(self.optimizer) else None
        self.shown_average = self.average or own_average

    def load(self, checkpoint):
        """Go on as a checkpoint's folder has it; raises CheckpointError where it is of another model."""
        load_checkpoint(checkpoint, self.parameters, self.optimizer, self.average)

    def checkpoint_files(self, step, make_exported=None, said=None):
        """File name -> (tensors, metadata) of a checkpoint, as the tensors are in use.

        Args:
            step: optimizer steps done; make_exported: (module) -> such a dict of files for others to read.
            said: metadata of the weights.
        """
        exported = {}
        if make_exported is not None:
            with averaged_for("export", self.shown_average, self.settings):
                # The average gives the weights' place back: what is exported may not be the weights themselves.
                exported = {name: self._own(content) for name, content in make_exported(self.module).items()}
        kept = step, self.parameters, self.optimizer, self.average, exported, said
        return sharded_checkpoint_tensors(self.accelerator, *kept) if self.in_shards else checkpoint_tensors(*kept)

    def _own(self, content):
        tensors, metadata = content
        tensors = gathered_on_main(tensors)
        if self.shown_average is not None:
            tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return tensors, metadata

    def export(self, write, folder):
        """Let ``write``, (module, folder) -> files, write the final weights; returns their paths within the folder."""
        with averaged_for("export", self.shown_average, self.settings):
            files = write(self.module, folder)
        return [str(Path(file).relative_to(folder)) for file in files]
