#!/usr/bin/env bash
# Stage 2: encode captions and clips once, then train a DoRA on them. Both lines use every GPU there is.
# A signal makes the training save and stop; one that comes while the cache is made ends this script alone, and the cache
# is made to its end, for the next start.
# Any option of `wan-alpha train-dit` may follow: examples/stage2_dora.sh --training.num_epochs 40
set -euo pipefail
WAN=${WAN:-models/Wan2.1-T2V-1.3B} RGBA_VAE=${RGBA_VAE:-runs/stage1_merge/rgba_vae.safetensors}
DATA=${DATA:-data/train} CACHE=${CACHE:-data/cache} OUT=${OUT:-runs/stage2}
FRAMES=${FRAMES:-81} HEIGHT=${HEIGHT:-480} WIDTH=${WIDTH:-832}

"$(dirname "$0")/start.sh" -m wan_alpha.cli.main cache \
    --model.wan "$WAN" --model.base_vae "$WAN/Wan2.1_VAE.pth" --model.rgba_weights "$RGBA_VAE" \
    --data.base_path "$DATA" --data.num_frames "$FRAMES" --data.height "$HEIGHT" --data.width "$WIDTH" \
    --output_dir "$CACHE"
exec "$(dirname "$0")/start.sh" -m wan_alpha.cli.main train-dit --config stage2_dora_1_3b \
    --model.wan "$WAN" --cache "$CACHE" --output_dir "$OUT" "$@"
