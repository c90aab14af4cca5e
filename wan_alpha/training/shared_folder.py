"""One output folder for the processes of a run, on however many machines."""

import socket
import time

from accelerate.utils import gather_object

from wan_alpha.errors import ConfigError
from wan_alpha.training.run_lock import sees_holder

# A network file system may show one machine what another has written only when its cached attributes run out.
SEEN_WITHIN_SECONDS = 60.0
POLL_SECONDS = 0.2


def check_all_see(accelerator, output_dir, token):
    """Make sure that every process sees the folder that the first one holds; all call this.

    All read the checkpoint that a run goes on from, and each writes its part of one where the weights are in shards.

    Args:
        accelerator: of the run; output_dir: as this process was told; token: of the first process's ``run_lock``.

    Raises:
        ConfigError: in all processes; with those that do not see it, and their machines.
    """
    if accelerator.num_processes == 1:
        return
    sees = accelerator.is_main_process or _sees_soon(output_dir, token)
    found = gather_object([(accelerator.process_index, socket.gethostname(), str(output_dir), sees)])
    blind = [f"process {rank} on {host} ({folder})" for rank, host, folder, sees in found if not sees]
    if blind:
        _, host, folder, _ = found[0]
        raise ConfigError(
            f"output_dir must be one folder which all machines see, on a shared file system: {', '.join(blind)} cannot "
            f"see what process 0 on {host} wrote into {folder}"
        )


def _sees_soon(output_dir, token):
    until = time.monotonic() + SEEN_WITHIN_SECONDS
    while not sees_holder(output_dir, token):
        if time.monotonic() > until:
            return False
        time.sleep(POLL_SECONDS)
    return True
