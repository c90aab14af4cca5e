#!/usr/bin/env bash
# Generate: examples/generate.sh "The background is transparent. Photograph, medium shot. A red balloon rises."
# With a step-distillation LoRA for the same base model: DISTILLED=lora.safetensors examples/generate.sh "..."
set -euo pipefail
WAN=${WAN:-models/Wan2.1-T2V-1.3B} RGBA_VAE=${RGBA_VAE:-runs/stage1_merge/rgba_vae.safetensors}
ADAPTER=${ADAPTER:-runs/stage2/adapter.safetensors} OUT=${OUT:-results}
PROMPT=${1:?give a prompt}
shift
# Four steps without guidance instead of fifty with it.
if [ -n "${DISTILLED:-}" ]; then
    set -- --distillation_lora "$DISTILLED" --num_steps 4 --guidance 1 "$@"
fi

python "$(dirname "$0")/inference_rgba.py" \
    --wan "$WAN" --feature_merge_checkpoint "$RGBA_VAE" --adapter "$ADAPTER" \
    --prompt "$PROMPT" --output_path "$OUT" "$@"
