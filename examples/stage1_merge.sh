#!/usr/bin/env bash
# Stage 1, short: train the merge block against the released decoders (decoder.bin). One GPU, several, or a CPU.
# Any option of train_feature_merge.py may follow: examples/stage1_merge.sh --num_epochs 20
set -euo pipefail
WAN=${WAN:-models/Wan2.1-T2V-1.3B} DECODERS=${DECODERS:-models/Wan-Alpha/decoder.bin}
DATA=${DATA:-data/train} OUT=${OUT:-runs/stage1_merge}

exec "$(dirname "$0")/start.sh" "$(dirname "$0")/train_feature_merge.py" \
    --dataset_base_path "$DATA" --base_vae_path "$WAN/Wan2.1_VAE.pth" --vae_lora_path "$DECODERS" \
    --height 272 --width 272 --num_frames 17 --learning_rate 1e-4 --num_epochs 10 --output_path "$OUT" "$@"
