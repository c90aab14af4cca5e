#!/usr/bin/env bash
# Reconstruct one pair with a trained RGBA VAE: examples/validate.sh 001_rgb.mp4 001_alpha.mp4
# Exit code 1 means that an error is above its bar.
set -euo pipefail
WAN=${WAN:-models/Wan2.1-T2V-1.3B} RGBA_VAE=${RGBA_VAE:-runs/stage1_merge/rgba_vae.safetensors}
RGB=${1:?give the colour video} ALPHA=${2:?give its matte}
shift 2

python "$(dirname "$0")/validate_feature_merge.py" \
    --base_vae_path "$WAN/Wan2.1_VAE.pth" --feature_merge_checkpoint "$RGBA_VAE" \
    --test_rgb_video "$RGB" --test_alpha_video "$ALPHA" --output_prefix runs/validation/validation "$@"
