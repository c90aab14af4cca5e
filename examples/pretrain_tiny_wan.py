"""Pretrain the tiny Wan family on synthetic clips, from nothing.

    python examples/pretrain_tiny_wan.py vae  --work_dir tiny_work
    python examples/pretrain_tiny_wan.py dit  --work_dir tiny_work
    python examples/pretrain_tiny_wan.py pack --work_dir tiny_work --output_dir wan_alpha/assets/tiny_wan

The VAE sees stills first and clips after; the DiT and the text encoder are trained together on its latents. Both save
their state every ``--save_every`` steps and go on from it when the command is run again.
"""

import argparse
import copy
import json
import math
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffsynth.diffusion import FlowMatchScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from wan_alpha.alpha.composite import BACKGROUND_COLOR_NAMES, BACKGROUND_COLORS, hard_render, soft_render
from wan_alpha.data.synthetic import draw_shape_clip, random_shape_clip
from wan_alpha.models.base_vae import WAN21_VAE, load_base_vae
from wan_alpha.models.causal_vae import decoder_frames, encoder_features, run_blocks
from wan_alpha.models.tiny import DIT_SIZES, VOCABULARY_SIZE, build_tiny_dit, build_tiny_text_encoder, build_tiny_vae
from wan_alpha.models.wan import load_tokenizer, load_wan, predict_velocity
from wan_alpha.weights.io import load_training_state, replacing, save_safetensors

SIZE = 64
CLIP_FRAMES = 9
LATENT_NOISE = 0.08  # decoding must survive small errors: latents will come from a diffusion model
LATENT_PENALTY = 1e-4
EMA_DECAY = 0.998
MAX_TOKENS = 64
VAE_FILE, RECORD_FILE = "Wan2.1_VAE.pth", "pretraining.json"
CAPTION_DROPOUT = 0.1
DIT_BATCH = 32
TIMESTEP_SHIFT = 2.0  # Wan's 5 is for large frames; at 64x64 it would leave outlines, the low-noise part, untrained


def smooth_texture(generator):
    """A cloud of colours that pans: content that is no shape, so that the VAE is not only for shapes."""
    cells = int(torch.randint(3, 9, (), generator=generator))
    canvas = F.interpolate(
        torch.rand(1, 3, cells, cells, generator=generator) * 2 - 1, scale_factor=128 // cells + 1, mode="bicubic"
    )
    dy, dx = (int(v) for v in torch.randint(-3, 4, (2,), generator=generator))
    frames = [
        canvas[0, :, 28 + dy * t : 28 + dy * t + SIZE, 28 + dx * t : 28 + dx * t + SIZE] for t in range(CLIP_FRAMES)
    ]
    return torch.stack(frames, dim=1).clamp(-1, 1)


def training_video(generator, num_frames):
    """What the Wan VAE will meet: renders over the eight colours and over gradients, mattes, a few textures."""
    kind = float(torch.rand((), generator=generator))
    if kind < 0.1:
        return smooth_texture(generator)[:, :num_frames]
    rgb, alpha = draw_shape_clip(random_shape_clip(generator), CLIP_FRAMES, SIZE, SIZE, generator)
    start = int(torch.randint(CLIP_FRAMES - num_frames + 1, (), generator=generator))
    rgb, alpha = rgb[None, :, start : start + num_frames], alpha[None, :, start : start + num_frames]
    if kind < 0.35:
        return (alpha * 2 - 1).expand_as(rgb)[0]
    color = BACKGROUND_COLORS[int(torch.randint(8, (), generator=generator))]
    if kind < 0.7:
        return hard_render(rgb, alpha, color)[0]
    if kind < 0.85:
        return soft_render(rgb, alpha, color)[0]
    corners = torch.rand(1, 3, 2, 2, generator=generator) * 2 - 1
    gradient = F.interpolate(corners, size=(SIZE, SIZE), mode="bilinear", align_corners=True).unsqueeze(2)
    return soft_render(rgb, alpha, gradient)[0]


def encode_mean(vae, video):
    features = encoder_features(vae.encoder, video)
    return vae.conv1(run_blocks(vae.encoder.head, features))[:, : vae.z_dim]


def decode_mean(vae, raw_latents):
    return decoder_frames(vae.decoder, vae.conv2(raw_latents))


def held_out_videos(num_clips):
    """Per kind of video, (num_clips, 3, T, H, W); drawn from seeds that training never uses."""
    videos = {"hard": [], "soft": [], "matte": []}
    for index in range(num_clips):
        generator = torch.Generator().manual_seed(10_000_000 + index)
        rgb, alpha = draw_shape_clip(random_shape_clip(generator), CLIP_FRAMES, SIZE, SIZE, generator)
        rgb, alpha, color = rgb[None], alpha[None], BACKGROUND_COLORS[index % 8]
        videos["hard"].append(hard_render(rgb, alpha, color))
        videos["soft"].append(soft_render(rgb, alpha, color))
        videos["matte"].append((alpha * 2 - 1).expand_as(rgb))
    return {kind: torch.cat(clips) for kind, clips in videos.items()}


@torch.no_grad()
def vae_psnr(vae, videos):
    """PSNR in dB over each kind of held-out video, reconstructions clamped to the valid range."""
    psnr = {}
    for kind, clips in videos.items():
        errors = [
            (decode_mean(vae, encode_mean(vae, clip)).clamp(-1, 1) - clip).pow(2).mean() for clip in clips.split(1)
        ]
        psnr[kind] = -10 * math.log10(torch.stack(errors).mean().item() / 4)
    return psnr


def learning_rate(step, num_steps, peak, warmup):
    return peak * min(1, (step + 1) / warmup) * (0.5 * (1 + math.cos(math.pi * step / num_steps)) * 0.995 + 0.005)


class Trainer:
    """Optimizer, weight average, log and resumable state of one pretraining run."""

    def __init__(self, name, modules, args, num_steps, peak_lr, warmup=50):
        self.num_steps, self.peak_lr, self.warmup = num_steps, peak_lr, warmup
        self.modules = torch.nn.ModuleDict(modules)
        self.average = copy.deepcopy(self.modules).requires_grad_(False)
        self.parameters = [parameter for parameter in self.modules.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=peak_lr, betas=(0.9, 0.99), weight_decay=0.0)
        args.work_dir.mkdir(parents=True, exist_ok=True)
        self.state_path, self.log_path = args.work_dir / f"{name}_state.pt", args.work_dir / f"{name}_log.jsonl"
        self.step, self.started = 0, time.time()
        if self.state_path.exists():
            state = load_training_state(self.state_path)
            self.modules.load_state_dict(state["modules"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def update(self, loss):
        lr = learning_rate(self.step, self.num_steps, self.peak_lr, self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        for slow, fast in zip(self.average.parameters(), self.modules.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1 - decay)
        self.step += 1

    def save(self):
        state = {"modules": self.modules.state_dict(), "average": self.average.state_dict(), "step": self.step}
        with replacing(self.state_path) as temporary:
            torch.save({**state, "optimizer": self.optimizer.state_dict()}, temporary)

    def log(self, **figures):
        line = json.dumps({"step": self.step, "seconds": round(time.time() - self.started, 1), **figures})
        print(line, flush=True)
        with open(self.log_path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def compiled(function, args):
    """With ``--compile``, the function through torch.compile, which fuses the norms, activations and paddings."""
    return torch.compile(function) if args.compile else function


def train_vae(trainer, args, batches, latent_noise=LATENT_NOISE, latent_penalty=LATENT_PENALTY):
    """Train until the trainer's last step; ``batches`` are (frames, clips) taken in turn."""
    vae, held_out = trainer.modules["vae"], held_out_videos(6)
    encode, decode = (compiled(partial(function, vae), args) for function in (encode_mean, decode_mean))
    while trainer.step < trainer.num_steps:
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + 7919 * len(batches) + trainer.step)
        num_frames, batch = batches[trainer.step % len(batches)]
        video = torch.stack([training_video(generator, num_frames) for _ in range(batch)])
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            mean = encode(video).float()
            scale = latent_noise * mean.detach().std(dim=(0, 2, 3, 4), keepdim=True)
            prediction = decode(mean + scale * torch.randn(mean.shape, generator=generator)).float()
        error = prediction - video
        trainer.update(error.pow(2).mean() + 0.1 * error.abs().mean() + latent_penalty * mean.pow(2).mean())
        if trainer.step % args.save_every == 0 or trainer.step == trainer.num_steps:
            psnr = vae_psnr(trainer.average["vae"], held_out)
            trainer.log(
                mse=error.pow(2).mean().item(), **{f"psnr_{kind}": round(value, 2) for kind, value in psnr.items()}
            )
            trainer.save()


def pretrain_vae(args):
    """Stills first, then clips with a fresh optimizer: the taps that look back in time have no moments yet, and at a
    full learning rate their first updates would destroy what the stills taught."""
    torch.manual_seed(args.seed)
    if args.start_from:
        vae = load_base_vae(args.start_from / VAE_FILE).requires_grad_(True)
    else:
        vae = build_tiny_vae()
        stills = Trainer("vae_stills", {"vae": vae}, args, args.still_steps, peak_lr=2e-3)
        train_vae(stills, args, batches=[(1, 16)])
        clips = Trainer("vae_clips", {"vae": vae}, args, args.clip_steps, peak_lr=1e-3, warmup=150)
        train_vae(clips, args, batches=[(CLIP_FRAMES, 2), (5, 4)])
        vae.load_state_dict(clips.average["vae"].state_dict())
    # Noise is relative to each channel, so nothing is gained by large latents and no penalty is needed; and Wan's own
    # offsets, which a family that was packed already has, must not be pulled to zero.
    refined = Trainer("vae", {"vae": vae}, args, args.refine_steps, peak_lr=1e-3, warmup=150)
    train_vae(refined, args, batches=[(CLIP_FRAMES, 2)], latent_noise=LATENT_NOISE / 2, latent_penalty=0.0)


@torch.no_grad()
def fold_latent_statistics(vae, generator, num_clips=64):
    """Give the latents Wan's own per-channel mean and std, without changing any reconstruction.

    ``conv1`` gains an affine map of the mean, ``conv2`` its inverse, so that Wan's normalisation constants hold.
    """
    means = [encode_mean(vae, training_video(generator, CLIP_FRAMES)[None]) for _ in range(num_clips)]
    values = torch.cat(means).transpose(0, 1).flatten(1)
    scale = torch.tensor(WAN21_VAE.latent_std) / values.std(dim=1)
    offset = torch.tensor(WAN21_VAE.latent_mean) - scale * values.mean(dim=1)
    channels = slice(0, vae.z_dim)
    vae.conv1.weight[channels] *= scale.view(-1, 1, 1, 1, 1)
    vae.conv1.bias[channels] = vae.conv1.bias[channels] * scale + offset
    vae.conv2.bias -= (vae.conv2.weight[:, :, 0, 0, 0] / scale) @ offset
    vae.conv2.weight /= scale.view(1, -1, 1, 1, 1)


def write_vae(args):
    """The finished VAE from the averaged weights: half precision, Wan's file name."""
    state = load_training_state(args.work_dir / "vae_state.pt")["average"]
    vae = build_tiny_vae()
    vae.load_state_dict({name.removeprefix("vae."): value for name, value in state.items()})
    fold_latent_statistics(vae.eval(), torch.Generator().manual_seed(args.seed + 5))
    torch.save({name: value.half() for name, value in vae.state_dict().items()}, args.work_dir / VAE_FILE)


def opaque_caption(clip, color_name):
    """The caption of a shape over an opaque colour: what a text-to-video model without alpha would know."""
    subject = f"A {clip.size} {clip.opacity} {clip.color} {clip.shape}, {clip.motion}"
    return f"Flat illustration, medium shot. {subject}, on a {color_name} background."


def write_tokenizer(folder):
    """A byte-level BPE tokenizer trained on captions; any text can be encoded, known words are one token."""
    generator = torch.Generator().manual_seed(1)
    clips = [random_shape_clip(generator) for _ in range(2000)]
    captions = [clip.caption for clip in clips]
    captions += [opaque_caption(clip, BACKGROUND_COLOR_NAMES[index % 8]) for index, clip in enumerate(clips)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_TOKENS, "padding_side": "right",
        "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def dit_dataset(vae, seed, num_clips, batch=8):
    """Normalised latents (N, 16, t, h, w) of soft renders over the eight colours, and their captions."""
    videos, latents, captions = [], [], []
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (WAN21_VAE.latent_mean, WAN21_VAE.latent_std))
    for index in range(num_clips):
        generator = torch.Generator().manual_seed(seed + index)
        clip = random_shape_clip(generator)
        rgb, alpha = draw_shape_clip(clip, CLIP_FRAMES, SIZE, SIZE, generator)
        color = int(torch.randint(8, (), generator=generator))
        videos.append(soft_render(rgb[None], alpha[None], BACKGROUND_COLORS[color]))
        captions.append(opaque_caption(clip, BACKGROUND_COLOR_NAMES[color]))
        if len(videos) == batch or index == num_clips - 1:
            latents.append((encode_mean(vae, torch.cat(videos)) - mean) / std)
            videos = []
    return torch.cat(latents), captions


class FlowObjective:
    """Rectified flow as Wan trains it: uniform on the shifted grid, bell-shaped weight, target noise - latents."""

    def __init__(self):
        self.scheduler = FlowMatchScheduler("Wan")
        self.scheduler.set_timesteps(1000, training=True, shift=TIMESTEP_SHIFT)

    def __call__(self, dit, latents, context, generator):
        ids = torch.randint(1000, (len(latents),), generator=generator)
        timesteps, sigma = self.scheduler.timesteps[ids], self.scheduler.sigmas[ids].view(-1, 1, 1, 1, 1)
        noise = torch.randn(latents.shape, generator=generator)
        velocity = predict_velocity(dit, (1 - sigma) * latents + sigma * noise, timesteps, context)
        error = (velocity - (noise - latents)).pow(2).mean(dim=(1, 2, 3, 4))
        return (error * self.scheduler.linear_timesteps_weights[ids]).mean(), error.mean()


def text_context(text_encoder, tokens):
    ids, mask = tokens
    return text_encoder(ids, mask) * mask.unsqueeze(-1)


def pretrain_dit(args):
    torch.manual_seed(args.seed)
    if not (args.work_dir / VAE_FILE).exists():
        write_vae(args)
    vae = load_base_vae(args.work_dir / VAE_FILE)
    write_tokenizer(args.work_dir / "umt5-xxl")
    tokenizer = load_tokenizer(args.work_dir / "umt5-xxl")
    latents, captions = dit_dataset(vae, args.seed + 1000, args.dit_clips)
    held_out_latents, held_out_captions = dit_dataset(vae, args.seed + 50_000_000, 64)
    tokens, held_out_tokens = (tokenizer(list(texts), return_mask=True) for texts in (captions, held_out_captions))
    empty = tokenizer([""], return_mask=True)
    if args.start_from:
        pipe = load_wan(str(args.start_from), components=("dit", "text_encoder"))
        models_ = {"dit": pipe.dit.requires_grad_(True), "text_encoder": pipe.text_encoder.requires_grad_(True)}
    else:
        models_ = {"dit": build_tiny_dit(), "text_encoder": build_tiny_text_encoder().eval()}
    trainer, objective = Trainer("dit", models_, args, args.dit_steps, peak_lr=1e-3, warmup=200), FlowObjective()
    while trainer.step < trainer.num_steps:
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + trainer.step)
        rows = torch.randint(len(latents), (DIT_BATCH,), generator=generator)
        dropped = torch.rand(DIT_BATCH, 1, generator=generator) < CAPTION_DROPOUT
        batch = [torch.where(dropped, none, some[rows]) for none, some in zip(empty, tokens, strict=True)]
        context = text_context(trainer.modules["text_encoder"], batch)
        loss, mse = objective(trainer.modules["dit"], latents[rows], context, generator)
        trainer.update(loss)
        if trainer.step % args.save_every == 0 or trainer.step == trainer.num_steps:
            with torch.no_grad():
                context = text_context(trainer.average["text_encoder"], held_out_tokens)
                generator = torch.Generator().manual_seed(7)
                held_out_mse = objective(trainer.average["dit"], held_out_latents, context, generator)[1].item()
            trainer.log(velocity_mse=mse.item(), held_out_velocity_mse=held_out_mse)
            trainer.save()


def pack(args):
    """Lay the finished family out as a download of Wan2.1-T2V."""
    output = args.output_dir
    output.mkdir(parents=True, exist_ok=True)
    state = load_training_state(args.work_dir / "dit_state.pt")["average"]
    parts = {
        part: {
            name.removeprefix(f"{part}."): value.bfloat16()
            for name, value in state.items()
            if name.startswith(f"{part}.")
        }
        for part in ("dit", "text_encoder")
    }
    save_safetensors(parts["dit"], output / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    torch.save(parts["text_encoder"], output / "models_t5_umt5-xxl-enc-bf16.pth")
    (output / VAE_FILE).write_bytes((args.work_dir / VAE_FILE).read_bytes())
    write_tokenizer(output / "google" / "umt5-xxl")
    sizes = {
        name: DIT_SIZES[name]
        for name in ("dim", "eps", "ffn_dim", "freq_dim", "in_dim", "num_heads", "num_layers", "out_dim")
    }
    config = {"_class_name": "WanModel", "model_type": "t2v", "text_len": MAX_TOKENS, **sizes}
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    logs = {}
    for part in ("vae_stills", "vae_clips", "vae", "dit"):
        log = args.work_dir / f"{part}_log.jsonl"
        if log.exists():  # the first two are left out of a run that starts from a finished family
            logs[part] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    psnr = vae_psnr(load_base_vae(output / VAE_FILE), held_out_videos(32))
    record = {
        "seed": args.seed,
        "vae_psnr": {kind: round(value, 2) for kind, value in psnr.items()},  # of the packed half-precision file
        "held_out": {part: log[-1] for part, log in logs.items()},
        "log": logs,
    }
    if args.start_from:
        record["started_from"] = json.loads((args.start_from / RECORD_FILE).read_text(encoding="utf-8"))
    (output / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["vae", "dit", "pack"])
    parser.add_argument("--work_dir", type=Path, required=True, help="where states and logs are kept")
    parser.add_argument("--output_dir", type=Path, help="pack: the folder of the finished family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--still_steps", type=int, default=700, help="VAE steps of 16 stills of 64x64")
    parser.add_argument("--clip_steps", type=int, default=2400, help="VAE steps of 2 clips of 9 frames or 4 of 5")
    parser.add_argument("--refine_steps", type=int, default=5000, help="VAE steps of 2 clips of 9 frames, after those")
    parser.add_argument("--start_from", type=Path, help="a packed family to go on from instead of starting anew")
    parser.add_argument("--dit_steps", type=int, default=10000, help="DiT steps of 32 clips")
    parser.add_argument("--dit_clips", type=int, default=4000, help="clips that the DiT learns from")
    parser.add_argument("--save_every", type=int, default=200, help="steps between evaluations and saved states")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16 (faster on CPUs with AMX)")
    parser.add_argument("--compile", action="store_true", help="compile the VAE (needs a C++ compiler)")
    args = parser.parse_args()
    {"vae": pretrain_vae, "dit": pretrain_dit, "pack": pack}[args.part](args)


if __name__ == "__main__":
    main()
