"""Peak memory of each mode of a known model, measured with random weights of the real sizes; nothing is downloaded.

    python examples/measure_memory.py --model Wan2.1-T2V-1.3B --work_dir /tmp/measure [--phases load,dora] [--write]

Each phase (wan_alpha/weights/memory.py says which mode has which) runs in a process of its own: on CUDA the peak of
`torch.cuda.max_memory_allocated` counts, on a CPU the process's largest resident memory less what its imports took,
glibc being told to give freed memory back. The weights are written to --work_dir in bf16 and removed again. --write
puts the figures, with device and day, into wan_models.json, where `wan-alpha inspect` reads them. A phase that would
not fit is left out, and says so.
"""

import argparse
import datetime
import json
import math
import multiprocessing
import os
import re
import resource
import sys
from importlib.resources import files
from pathlib import Path

from wan_alpha.weights.memory import GIB, PHASES, RANK, predicted_bytes

LIMIT = 1.2  # times the loaded model, that loading may take
SHARE = 0.9  # of the free memory, that the weights of a phase may take
NUM_TOKENS = 512
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def main(arguments=None):
    """Measure, print, and write if told; returns 1 if loading a model above 1 GiB took more than 1.2 times of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name in wan_models.json, e.g. Wan2.1-T2V-1.3B")
    parser.add_argument("--work_dir", type=Path, required=True, help="folder for the weights, which are removed again")
    parser.add_argument("--phases", default=",".join(PHASES), help=f"some of {', '.join(PHASES)}; default: all")
    parser.add_argument("--clip", default="17x272x272", help="frames x height x width of the clip")
    parser.add_argument("--precision", choices=sorted(DTYPES), default="bf16", help="type of frozen weights, compute")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"), help="auto = cuda, else cpu")
    parser.add_argument("--limit_gib", type=float, help="memory to stay under; default: what is free")
    parser.add_argument("--write", action="store_true", help="write the figures into wan_models.json")
    given = parser.parse_args(arguments)
    from wan_alpha.weights.registry import known_model, known_models

    model, wanted = known_model(given.model), given.phases.split(",")
    if unknown := set(wanted) - set(PHASES):
        parser.error(f"--phases {', '.join(sorted(unknown))}: choose of {', '.join(PHASES)}")
    clip = tuple(map(int, given.clip.split("x")))
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "131072")  # glibc: freed memory goes back, and is not counted
    device, name, free = in_fresh_process(find_device, given.device)
    limit = given.limit_gib or SHARE * free
    given.work_dir.mkdir(parents=True, exist_ok=True)
    worst, entries = 0.0, {}
    for phase in wanted:
        needed = predicted_bytes(phase, model) / GIB
        if needed > limit:
            print(f"{model.name} {phase}: not measured, its weights take {needed:.2f} GiB of {limit:.2f}")
            continue
        try:
            paths = in_fresh_process(write_weights, given.work_dir, model, phase)
            peak, weights = in_fresh_process(measure, phase, paths, model, clip, DTYPES[given.precision], device)
        finally:
            for path in given.work_dir.glob("measured_*"):
                path.unlink()
        ratio = peak / weights
        worst = max(worst, ratio if phase == "load" and weights > 1 else 0.0)
        of_clip = None if phase in ("load", "text") else given.clip
        entries[phase] = {
            "gib": round(peak, 2), "device": name, "precision": given.precision, "clip": of_clip,
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        print(
            f"{model.name} {phase} on {name} in {given.precision}: peak {peak:.2f} GiB, {weights:.2f} GiB of weights, "
            f"{ratio:.2f} times the model" + (f", clip of {of_clip}" if of_clip else "")
        )
    if given.write:
        for other in known_models().values():
            write_registry(other.name, shared_entries(entries, model, other))
    return 0 if worst <= LIMIT else 1


def in_fresh_process(function, *arguments):
    """Run in a process of its own, so that its peak is the function's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def find_device(wanted):
    """(device, its name, GiB that are free on it)."""
    import psutil
    import torch

    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        return "cuda", torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0] / GIB
    return "cpu", "CPU", psutil.virtual_memory().available / GIB


def write_weights(folder, model, phase):
    """The files that a phase reads, in bf16 with random weights, one tensor in memory at a time: part -> path."""
    from wan_alpha.models.load import dit_shapes, text_encoder_shapes, vae_shapes

    paths, metadata = {}, {"num_heads": str(model.dit["num_heads"])}
    if phase not in ("text", "encoding", "decoding"):
        shapes = dit_shapes(model.dit, model.text_encoder["dim"])
        for number in range(model.num_experts if phase == "sampling" else 1):
            paths[f"dit{number}"] = _write_random(folder / f"measured_dit{number}.safetensors", shapes, metadata)
    if phase in ("text", "textual_inversion"):
        shapes = text_encoder_shapes(model.text_encoder)
        paths["text"] = _write_random(folder / "measured_text.safetensors", shapes)
    if phase in ("encoding", "decoding"):
        paths["vae"] = _write_random(folder / "measured_vae.safetensors", vae_shapes(model.vae))
    return paths


def _write_random(path, shapes, metadata=None):
    import torch

    from wan_alpha.weights.safetensors_stream import safetensors_stream

    # Views of one block of noise: what is written is full, what is held is one tensor.
    noise = torch.randn(max(map(math.prod, shapes.values())), generator=torch.Generator().manual_seed(0))
    noise = noise.mul_(0.02).bfloat16()
    tensors = {name: noise[: math.prod(shape)].view(shape) for name, shape in shapes.items()}
    with open(path, "wb") as file:
        for chunk in safetensors_stream(tensors, metadata or {})[1]:
            file.write(chunk)
    return path


def measure(phase, paths, model, clip, dtype, device):
    """(GiB of the peak, GiB of the weights that were held) of one phase."""
    import torch

    from wan_alpha.models import wan  # noqa: F401 (imports are not the phase's)
    from wan_alpha.models.rgba_vae import RGBAlphaVAE  # noqa: F401

    torch.manual_seed(0)
    before = peak_gib(device)
    held = _RUN[phase](Measured(paths, model, clip, getattr(torch, dtype), device), phase)
    return peak_gib(device) - before, held


def peak_gib(device):
    """Largest memory so far: of the CUDA device, or resident memory of this process, in GiB."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


class Measured:
    """What the phases of one model work on.

    Args:
        paths: part -> file; model: KnownModel; clip: (frames, height, width); dtype: of frozen weights and computing.
    """

    def __init__(self, paths, model, clip, dtype, device):
        self.paths, self.model, self.clip, self.dtype, self.device = paths, model, clip, dtype, device

    def dit(self, number=0):
        from wan_alpha.models.load import load_dit

        return load_dit([self.paths[f"dit{number}"]], self.device, self.dtype)

    def text_encoder(self):
        from wan_alpha.models.load import load_text_encoder

        encoder = load_text_encoder([self.paths["text"]], self.device, self.dtype)
        encoder.token_embedding.weight.detach().sum()  # all of the table, mapped from the file, counts, as on a GPU
        return encoder

    def latents(self):
        import torch

        (frames, height, width), channels = self.clip, self.model.dit["in_dim"]
        stride = 16 if self.model.vae["latent_channels"] == 48 else 8
        return torch.randn(1, channels, (frames + 3) // 4, height // stride, width // stride, device=self.device)

    def context(self):
        import torch

        return torch.randn(1, NUM_TOKENS, self.model.text_encoder["dim"], device=self.device)


def held_gib(*modules):
    """GiB of modules' parameters."""
    return sum(p.numel() * p.element_size() for module in modules for p in module.parameters()) / GIB


def run_load(measured, _):
    import torch

    dit = measured.dit()
    with torch.no_grad():  # every weight is touched, so that mapped pages count too
        assert math.isfinite(sum(float(parameter.flatten()[::512].sum()) for parameter in dit.parameters()))
    return held_gib(dit)


def run_text(measured, _):
    import torch

    from wan_alpha.stages.plan_cache import CAPTIONS_AT_A_TIME

    encoder = measured.text_encoder()
    vocabulary = measured.model.text_encoder["vocab"]
    ids = torch.randint(0, vocabulary, (CAPTIONS_AT_A_TIME, NUM_TOKENS), device=measured.device)
    with torch.no_grad():
        encoder(ids, torch.ones_like(ids))
    return held_gib(encoder)


def run_sampling(measured, _):
    from wan_alpha.inference.sampler import sample_latents

    dits = [measured.dit(number) for number in range(measured.model.num_experts)]
    options = {"dit_low_noise": dits[1], "boundary": 0.9} if len(dits) == 2 else {}
    sample_latents(
        dits[0], measured.context(), tuple(measured.latents().shape), num_steps=2, guidance=5.0,
        negative_context=measured.context(), **options,
    )  # fmt: skip
    return held_gib(*dits)


def _rgba_vae(measured, dtype):
    import torch

    from wan_alpha.models.rgba_vae import RGBAlphaVAE

    vae = RGBAlphaVAE.from_pretrained(measured.paths["vae"], dtype=dtype, device=measured.device)
    vae.chunk_size = 1
    return vae.eval().requires_grad_(False), torch.no_grad()


def run_encoding(measured, _):
    import torch

    vae, no_grad = _rgba_vae(measured, torch.float32)  # as `cache` and `train-vae` have it
    rgb = torch.rand(1, 3, *measured.clip, device=measured.device)
    with no_grad, torch.autocast(measured.device, measured.dtype, enabled=measured.dtype != torch.float32):
        vae.encode_raw(rgb, rgb[:, :1])
    return held_gib(vae)


def run_decoding(measured, _):
    vae, no_grad = _rgba_vae(measured, measured.dtype)  # as `generate` has it
    shape = measured.latents()[:, : vae.latent_channels]
    with no_grad:
        for _frames in vae.iterate_decode(shape, chunk_size=1):
            pass
    return held_gib(vae)


def run_training(measured, phase):
    """One step of the DiT with gradient checkpointing, batch 1: an adapter of rank 32, or every weight in float32."""
    from wan_alpha.models.adapters import add_adapter

    dit = measured.dit().train()
    if phase == "full":
        parameters = list(dit.float().requires_grad_(True).parameters())
    else:
        parameters = add_adapter(dit, phase, RANK, RANK)
    _step(measured, dit, parameters, measured.context)
    return held_gib(dit)


def run_textual_inversion(measured, _):
    """One step of a placeholder's vector through the frozen text encoder and DiT, with gradient checkpointing."""
    import torch

    from wan_alpha.models.textual_inversion import PlaceholderEmbedding
    from wan_alpha.stages.placeholders import checkpoint_blocks

    dit, encoder = measured.dit(), measured.text_encoder()
    size, vocabulary = measured.model.text_encoder["dim"], measured.model.text_encoder["vocab"]
    embedding = encoder.token_embedding = PlaceholderEmbedding(encoder.token_embedding)
    embedding.add("<new>", torch.randn(1, size), [vocabulary])
    ids = torch.randint(0, vocabulary, (1, NUM_TOKENS), device=measured.device)
    ids[0, 3] = vocabulary
    checkpoint_blocks(encoder)
    _step(measured, dit, list(embedding.vectors), lambda: encoder(ids, torch.ones_like(ids)).float())
    return held_gib(dit, encoder)


def _step(measured, dit, parameters, make_context):
    import torch

    from wan_alpha.models.wan import predict_velocity

    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    latents, timesteps = measured.latents(), torch.full((1,), 500.0, device=measured.device)
    with torch.autocast(measured.device, measured.dtype, enabled=measured.dtype != torch.float32):
        velocity = predict_velocity(dit, latents, timesteps, make_context(), gradient_checkpointing=True)
    velocity.float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in parameters)
    optimizer.step()


_PARTS = {"text": "text_encoder", "encoding": "vae", "decoding": "vae"}  # phases that need nothing else of a model
_RUN = {
    "load": run_load, "text": run_text, "encoding": run_encoding, "sampling": run_sampling, "decoding": run_decoding,
    "lora": run_training, "dora": run_training, "full": run_training, "textual_inversion": run_textual_inversion,
}  # fmt: skip


def shared_entries(entries, model, other):
    """Those of a model's figures that are another's too: of a text encoder or a VAE that both have."""
    return {
        phase: entry
        for phase, entry in entries.items()
        if other is model or (phase in _PARTS and getattr(other, _PARTS[phase]) == getattr(model, _PARTS[phase]))
    }


def write_registry(name, entries, path=None):
    """Put figures into wan_models.json, or into ``path``; what was not measured stays as it is."""
    path = path or Path(str(files("wan_alpha") / "assets" / "wan_models.json"))
    text = path.read_text(encoding="utf-8")
    start = text.index(f'"{name}": {{')
    start = text.index('"memory": {', start)
    for phase, entry in entries.items():
        place = re.compile(rf'"{phase}": (null|\{{[^}}]*\}})').search(text, start)
        text = f'{text[: place.start()]}"{phase}": {json.dumps(entry)}{text[place.end() :]}'
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
