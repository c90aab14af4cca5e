"""The processes of one job, forked from one that has imported the stages: what torchrun starts, without an import each.

Arguments: number of processes, a Python script, its arguments. Ends with the first failure, and ends the others then.
"""

import os
import runpy
import signal
import socket
import sys

# What the scripts need and takes seconds.
import wan_alpha.models.dora
import wan_alpha.stages.cache_latents
import wan_alpha.stages.stage2_dit  # noqa: F401


def start(rank, variables, script, arguments):
    """Fork a process that runs the script with torchrun's variables; returns its id."""
    child = os.fork()
    if child == 0:
        os.environ.update(variables, RANK=str(rank), LOCAL_RANK=str(rank))
        sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(script)
        runpy.run_path(script, run_name="__main__")
        sys.stdout.flush()
        os._exit(0)  # without taking all that was imported apart again
    return child


def main(num_processes, script, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = {"WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
    variables = {**size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = {start(rank, variables, script, arguments) for rank in range(int(num_processes))}
    while running:
        child, status = os.wait()
        running.discard(child)
        if status != 0:
            for other in running:
                os.kill(other, signal.SIGKILL)
            sys.exit(f"one of {num_processes} processes ended with {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
