"""RGBAlphaVAE: a frozen Wan VAE, a merge block, and two LoRA decoders (Wan-Alpha, Section 3.1)."""

import json

import torch
from torch import nn

from wan_alpha.alpha.ranges import model_to_alpha, unit_to_model
from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.base_vae import kind_of_vae, load_base_vae
from wan_alpha.models.causal_vae import (
    TEMPORAL_STRIDE,
    ClipState,
    encoder_features,
    encoder_features_chunked,
    video_chunks,
)
from wan_alpha.models.decoder_lora import DecoderLoRA, WanDecoder, decoder_convolutions
from wan_alpha.models.feature_merge import FeatureMergeBlock
from wan_alpha.models.tiling import TileBlender, scaled, tile_windows
from wan_alpha.weights import rgba_vae as naming
from wan_alpha.weights.io import rounded_sha256, save_pickle, save_safetensors, tensors_sha256

RELEASED_LORA_ALPHA = 1.0
DEFAULT_LORA_RANK = 128
TRAINABLE_MODES = ("none", "merge", "full")


class RGBAlphaVAE(nn.Module):
    """Encode a rendered colour video and its alpha into one latent; decode it into colour and alpha.

    Attributes:
        base: the frozen ``VideoVAE_`` (Wan2.1) or ``VideoVAE38_`` (Wan2.2); merge: the :class:`FeatureMergeBlock`.
        foreground, alpha: the :class:`DecoderLoRA` of each decoder.
        chunk_size: latent frames a pass, None for the whole clip: the same numbers either way, chunks bound memory.
        gradient_checkpointing: whether training computes the decoders' activations twice, over the whole clip.
        tiling: a :class:`~wan_alpha.models.tiling.Tiling` for frames too large for one pass, or None.
        spatial_stride: pixels a latent cell, 8 (Wan2.1) or 16 (Wan2.2); latent_channels: 16 or 48.
    """

    temporal_stride = TEMPORAL_STRIDE

    def __init__(self, base, lora_rank=128, lora_alpha=RELEASED_LORA_ALPHA, merge_width=None, init="from_vae", seed=0):
        """
        Args:
            base: a ``VideoVAE_`` or ``VideoVAE38_`` with its weights; lora_rank, lora_alpha: of both decoders' LoRA.
            merge_width: width of the merge block, None for the encoder's feature width.
            init: "from_vae" (exactly the base VAE at step 0) or "random" (as released).
            seed: of the random start.

        Raises:
            ConfigError: an unknown ``init``, or a width that "from_vae" cannot use.
        """
        super().__init__()
        if init not in ("random", "from_vae"):
            raise ConfigError(f'init = "{init}" is unknown; use "random" or "from_vae"')
        self.base = base.eval().requires_grad_(False)
        kind = kind_of_vae(base)
        self.latent_channels, self.spatial_stride = kind.latent_channels, kind.spatial_stride
        features = base.encoder.head[2].weight.shape[1]
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.merge = FeatureMergeBlock(features, merge_width or features, self.latent_channels)
        if init == "from_vae":
            self.merge.start_from_vae(base)
        self.foreground = DecoderLoRA(base.decoder, lora_rank, lora_alpha, generator)
        self.alpha = DecoderLoRA(base.decoder, lora_rank, lora_alpha, generator)
        for name, values in (("latent_mean", kind.latent_mean), ("latent_std", kind.latent_std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1, 1), persistent=False)
        self.chunk_size = None
        self.gradient_checkpointing = False
        self._tiling = None
        self._decoder = WanDecoder(base.decoder)
        self.set_trainable("none")

    @classmethod
    def from_pretrained(
        cls, base_vae, rgba_weights=None, decoder_lora=None, dtype=torch.float32, device="cpu", *,
        init="from_vae", lora_rank=None, merge_width=None, seed=0,
    ):  # fmt: skip
        """Build from files.

        Args:
            base_vae: the Wan VAE (``Wan2.1_VAE.pth``, ``Wan2.2_VAE.pth`` or safetensors); kind and width are inferred.
            rgba_weights: a trained RGBA VAE, in this project's or the released naming, with its merge block; None
                starts anew.
            decoder_lora: the released ``decoder.bin``; overrides the decoders of ``rgba_weights``.
            dtype: of the base and the merge block. LoRA factors stay float32 and are composed in float32; train with
                float32 here and autocast around the step.
            init, lora_rank, merge_width, seed: of what the files do not hold; rank None means 128.

        Raises:
            CheckpointError: a file is not what it claims, or does not fit the base VAE; ``rgba_weights`` holds no
                merge block, one decoder without the other, or none when ``decoder_lora`` is not given either.
        """
        weights = naming.read_rgba_vae(rgba_weights) if rgba_weights else None
        base = load_base_vae(base_vae)
        if weights is not None:
            lora_alpha = float(weights.metadata.get("lora_alpha", RELEASED_LORA_ALPHA))
            _check_trained_parts(weights, rgba_weights, decoder_lora)
            merge, foreground = weights.part("merge"), weights.part("foreground")
            if "conv1.weight" in merge:
                init, merge_width = "random", merge["conv1.weight"].shape[0]
            if foreground:
                lora_rank = naming.lora_rank(foreground, rgba_weights)
        else:
            lora_alpha = RELEASED_LORA_ALPHA
        vae = cls(base, lora_rank or DEFAULT_LORA_RANK, lora_alpha, merge_width, init, seed)
        if weights is not None:
            vae._check_base(weights, rgba_weights)
            vae._load_parts(weights, rgba_weights, ("merge", "foreground", "alpha"))
        if decoder_lora:
            load_decoder_lora(vae, decoder_lora)
        vae.base.to(dtype)
        vae.merge.to(dtype)
        return vae.to(device)

    @property
    def tiling(self):
        return self._tiling

    @tiling.setter
    def tiling(self, tiling):
        if tiling is not None and tiling.stride != self.spatial_stride:
            raise ConfigError(f"tiles on a grid of {tiling.stride} pixels: this VAE needs {self.spatial_stride}")
        self._tiling = tiling

    def set_trainable(self, mode):
        """Choose what trains: "merge" (merge block only), "full" (merge block and both decoders' LoRA) or "none"."""
        if mode not in TRAINABLE_MODES:
            raise ConfigError(f'mode = "{mode}" is unknown; use one of {", ".join(TRAINABLE_MODES)}')
        self.merge.requires_grad_(mode != "none")
        self.foreground.requires_grad_(mode == "full")
        self.alpha.requires_grad_(mode == "full")
        return self

    # --- encode ---------------------------------------------------------------------------------------------------

    def encode_features(self, video):
        """Encoder features before the encoder's head.

        Args:
            video: (B, 3, 4n+1, H, W) in [-1, 1], any float dtype, H and W multiples of ``spatial_stride``.

        Returns:
            (B, 4*width, n+1, H/s, W/s) with s = ``spatial_stride``, in the dtype that the VAE computes in, as all
            outputs here.

        Raises:
            ConfigError: a size off the grid.
        """
        self._check_video(video)
        return encoder_features_chunked(self.base.encoder, video.to(self._dtype), self.chunk_size)

    def encode_raw(self, rgb, alpha):
        """Merged latents before normalisation.

        Args:
            rgb: a rendered video (opaque), (B, 3, 4n+1, H, W) in [-1, 1]; alpha: (B, 1, 4n+1, H, W) in [0, 1].

        Returns:
            (B, C, n+1, H/s, W/s), C = ``latent_channels`` and s = ``spatial_stride``.

        Raises:
            ConfigError: a size off the grid, or streams of different sizes.
        """
        self._check_video(rgb)
        if alpha.shape != (rgb.shape[0], 1, *rgb.shape[2:]):
            raise ConfigError(
                f"alpha must be {(rgb.shape[0], 1, *rgb.shape[2:])} to go with rgb, got {tuple(alpha.shape)}"
            )
        streams = torch.cat([rgb, unit_to_model(alpha).expand_as(rgb)]).to(self._dtype)
        if self.tiling is None:
            return self._merged(streams)
        stride = self.spatial_stride
        height, width = rgb.shape[3] // stride, rgb.shape[4] // stride
        blender = TileBlender(height, width, self.tiling.overlap // stride)
        for rows, columns in tile_windows(height, width, self.tiling):
            tile = streams[..., scaled(rows, stride), scaled(columns, stride)]
            blender.add(self._merged(tile), rows, columns)
        return blender.result()

    def _merged(self, streams):
        state, merge_state = ClipState(), ClipState()
        latents = []
        for chunk in video_chunks(streams, self.chunk_size):
            features = encoder_features(self.base.encoder, chunk, state)
            latents.append(self.merge(*features.chunk(2), merge_state))
        return torch.cat(latents, dim=2)

    def encode(self, rgb, alpha):
        """:meth:`encode_raw`, normalised with the Wan VAE's mean and std: what the DiT sees."""
        return self.normalise(self.encode_raw(rgb, alpha))

    def normalise(self, raw_latents):
        """(raw - mean) / std a channel, in float32; the result has the dtype of ``raw_latents``."""
        return ((raw_latents.float() - self.latent_mean) / self.latent_std).to(raw_latents.dtype)

    def denormalise(self, latents):
        """latents * std + mean a channel, in float32; the result has the dtype of ``latents``."""
        return (latents.float() * self.latent_std + self.latent_mean).to(latents.dtype)

    @property
    def _dtype(self):
        return self.base.conv2.weight.dtype

    # --- decode ---------------------------------------------------------------------------------------------------

    def decode_raw(self, raw_latents):
        """Both decoders' unclamped outputs, for the loss.

        Args:
            raw_latents: (B, C, n+1, h, w), not normalised, any float dtype.

        Returns:
            foreground and alpha, each (B, 3, 4n+1, s*h, s*w), about [-1, 1].
        """
        if self.gradient_checkpointing and torch.is_grad_enabled():
            z = self.base.conv2(raw_latents.to(self._dtype))
            return tuple(self._decoder.run_checkpointed(weights, z) for weights in self._composed())
        chunks = list(self._iterate_raw(raw_latents, self.chunk_size or raw_latents.shape[2]))
        return tuple(torch.cat(frames, dim=2) for frames in zip(*chunks, strict=True))

    def decode(self, latents):
        """Decode normalised latents (B, C, n+1, h, w).

        Returns:
            rgb, straight (B, 3, 4n+1, s*h, s*w) in [-1, 1], and alpha (B, 1, 4n+1, s*h, s*w) in [0, 1].
        """
        raw_rgb, raw_alpha = self.decode_raw(self.denormalise(latents))
        return raw_rgb.clamp(-1, 1), model_to_alpha(raw_alpha)

    @torch.no_grad()
    def iterate_decode(self, latents, chunk_size=1):
        """Yield (rgb, alpha) of :meth:`decode` in chunks of ``chunk_size`` latent frames, in bounded memory."""
        for raw_rgb, raw_alpha in self._iterate_raw(self.denormalise(latents), chunk_size):
            yield raw_rgb.clamp(-1, 1), model_to_alpha(raw_alpha)

    def _iterate_raw(self, raw_latents, chunk_size):
        z = self.base.conv2(raw_latents.to(self._dtype))
        weights = self._composed()
        height, width = z.shape[3:]
        windows = [(slice(0, height), slice(0, width))]
        if self.tiling is not None:
            windows = tile_windows(height, width, self.tiling)
        states = [[ClipState() for _ in windows] for _ in weights]
        for chunk in z.split(chunk_size, dim=2):
            yield tuple(
                self._decode_windows(chunk, windows, stream_weights, stream_states)
                for stream_weights, stream_states in zip(weights, states, strict=True)
            )

    def _composed(self):
        """Both decoders' weights, foreground and alpha."""
        return [lora.compose(self.base.decoder) for lora in (self.foreground, self.alpha)]

    def _decode_windows(self, z, windows, weights, states):
        if len(windows) == 1:
            return self._decoder.run(weights, z, states[0])
        stride = self.spatial_stride
        height, width = (size * stride for size in z.shape[3:])
        blender = TileBlender(height, width, self.tiling.overlap)
        for (rows, columns), state in zip(windows, states, strict=True):
            tile = self._decoder.run(weights, z[..., rows, columns], state)
            blender.add(tile, scaled(rows, stride), scaled(columns, stride))
        return blender.result()

    # --- weights --------------------------------------------------------------------------------------------------

    def trained_state(self):
        """What training changes, under this project's names (see ``wan_alpha.weights.rgba_vae``)."""
        state = {f"merge.{name}": value for name, value in self.merge.state_dict().items()}
        for stream in naming.STREAMS:
            for name, pair in getattr(self, stream).named_pairs():
                state[f"{stream}.{name}.lora_A"] = pair.lora_A.detach()
                state[f"{stream}.{name}.lora_B"] = pair.lora_B.detach()
        return state

    def save(self, path, recipe=None):
        """Write the trained part as safetensors with its metadata (format, base VAE hash, rank, alpha, recipe)."""
        save_safetensors(self.trained_state(), path, self.metadata(recipe))

    def metadata(self, recipe=None):
        """What a file of the trained part says of itself, str to str. Hashes the base: a second at real size."""
        return {
            "format": naming.FORMAT, "format_version": naming.FORMAT_VERSION, "base_vae_sha256": self.base_sha256(),
            "lora_rank": str(self.foreground.rank), "lora_alpha": str(self.foreground.alpha),
            "merge_width": str(self.merge.conv1.weight.shape[0]), "recipe": json.dumps(recipe or {}, default=str),
        }  # fmt: skip

    def save_released(self, path, decoders_only=False):
        """Write the trained part in the released naming (a ``.bin`` that the released code reads).

        ``decoders_only`` gives what released inference loads as ``decoder.bin``. The released code divides by the
        rank alone, so another ``lora_alpha`` than 1 is folded into B.
        """
        state = self.trained_state()
        for name in [name for name in state if name.endswith("lora_B")]:
            state[name] = state[name] * (self.foreground.alpha / RELEASED_LORA_ALPHA)
        if decoders_only:
            state = {name: value for name, value in state.items() if not name.startswith("merge.")}
        causal = {name for name, conv in decoder_convolutions(self.base.decoder).items() if conv.weight.dim() == 5}
        save_pickle(naming.released_names(state, causal), path)

    def base_sha256(self):
        """Hash of the base VAE's values rounded to bfloat16: the same for a float32 file and its bfloat16 copy."""
        return rounded_sha256(self.base.state_dict())

    def fingerprint(self):
        """Hash of everything that shapes latents: base encoder and merge block."""
        state = {f"encoder.{name}": value for name, value in self.base.encoder.state_dict().items()}
        return tensors_sha256(state | {f"merge.{name}": value for name, value in self.merge.state_dict().items()})

    def _check_base(self, weights, path):
        naming.check_same_base(weights.base, self.base.state_dict(), path)
        trained_on = weights.metadata.get("base_vae_sha256")
        if trained_on and trained_on != self.base_sha256():
            raise CheckpointError(
                f"{path}: trained on another base VAE (its hash begins {trained_on[:12]}, this one's "
                f"{self.base_sha256()[:12]}); give the base VAE it was trained on"
            )

    def _load_parts(self, weights, path, prefixes):
        own = self.trained_state()
        for prefix in prefixes:
            found = weights.part(prefix)
            expected = {name[len(prefix) + 1 :]: value for name, value in own.items() if name.startswith(prefix + ".")}
            if not found:
                continue
            if missing := sorted(set(expected) - set(found)):
                raise CheckpointError(f"{path}: {prefix}: {len(missing)} weights are missing, {missing[0]} among them")
            if extra := sorted(set(found) - set(expected)):
                raise CheckpointError(f"{path}: {prefix}: {extra[0]} belongs to no part of this VAE")
            for name, value in found.items():
                if value.shape != expected[name].shape:
                    needed = tuple(expected[name].shape)
                    raise CheckpointError(
                        f"{path}: {prefix}.{name} is {tuple(value.shape)}, the base VAE needs {needed}"
                    )
                with torch.no_grad():
                    expected[name].copy_(value)

    def _check_video(self, video):
        frames, height, width = video.shape[2:]
        if (frames - 1) % TEMPORAL_STRIDE:
            below = (frames - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1
            raise ConfigError(f"{frames} frames: the VAE takes 4n+1 frames, for example {below} or {below + 4}")
        for name, size in (("height", height), ("width", width)):
            if size % self.spatial_stride:
                nearest = max(size // self.spatial_stride, 1) * self.spatial_stride
                raise ConfigError(
                    f"{name} {size}: the VAE takes multiples of {self.spatial_stride}, for example {nearest}"
                )


def load_decoder_lora(vae, path):
    """Load both decoders' LoRA, as the released ``decoder.bin`` holds them, into an :class:`RGBAlphaVAE`.

    The LoRA takes the file's rank.

    Raises:
        CheckpointError: the file holds no decoders, or does not fit the VAE.
    """
    weights = naming.read_rgba_vae(path)
    if not weights.part("foreground") or not weights.part("alpha"):
        raise CheckpointError(f"{path}: expected both decoders (vae_fgr.decoder.*, vae_pha.decoder.*)")
    vae._check_base(weights, path)
    rank = naming.lora_rank(weights.part("foreground"), path)
    lora_alpha = float(weights.metadata.get("lora_alpha", RELEASED_LORA_ALPHA))
    for stream in naming.STREAMS:
        trains = getattr(vae, stream).pairs["conv1"].lora_A.requires_grad
        lora = DecoderLoRA(vae.base.decoder, rank, lora_alpha).requires_grad_(trains)
        setattr(vae, stream, lora.to(vae.latent_mean.device))
    vae._load_parts(weights, path, ("foreground", "alpha"))
    return vae


def _check_trained_parts(weights, path, decoder_lora):
    decoders = [stream for stream in naming.STREAMS if weights.part(stream)]
    if not weights.part("merge"):
        raise CheckpointError(
            f"{path}: holds only the decoders; rgba_weights must hold the merge block (middle.block.* or merge.*) too; "
            f"a decoder.bin belongs to decoder_lora"
        )
    if not decoders and decoder_lora is None:
        raise CheckpointError(f"{path}: holds no decoders; give their file too (decoder_lora, decoder.bin)")
    if len(decoders) == 1:
        raise CheckpointError(f"{path}: holds the {decoders[0]} decoder alone; both belong together")
