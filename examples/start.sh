#!/usr/bin/env bash
# Start a Python program on every GPU there is: examples/start.sh -m wan_alpha.cli.main train-dit ...
# This process becomes the program, or its launcher: SIGTERM, SIGINT and SIGUSR1 to it make the run save and stop.
# Exit code after that: 75 with one GPU; 1 with several, the launcher's own, whatever the processes end with.
set -euo pipefail

# One process needs no launcher: `accelerate launch` would end at the signal and leave the training running.
if [ "$(python -c 'import torch; print(torch.cuda.device_count())')" -le 1 ]; then
    exec python "$@"
fi
# torchrun, which accelerate uses, does not know SIGUSR1 unless told, and kills after 30 s. The second setting needs
# torch 2.12; before, send the signal to one of the training processes if a step and a checkpoint take longer than that.
export PET_SIGNALS_TO_HANDLE=${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}
exec accelerate launch "$@"
