#!/usr/bin/env bash
# Stage 1 as the paper trains it: merge block and both decoders' LoRA. Starts one process per GPU.
# Any option of `wan-alpha train-vae` may follow: examples/stage1_full.sh --training.max_steps 5000
set -euo pipefail
WAN=${WAN:-models/Wan2.1-T2V-1.3B} DATA=${DATA:-data/train} OUT=${OUT:-runs/stage1}

exec "$(dirname "$0")/start.sh" -m wan_alpha.cli.main train-vae --config stage1_rgba_vae \
    --model.base_vae "$WAN/Wan2.1_VAE.pth" --data.base_path "$DATA" --output_dir "$OUT" "$@"
