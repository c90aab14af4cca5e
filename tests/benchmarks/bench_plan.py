"""The peak memory that ``wan-alpha plan`` predicts beside the one that training has, at widths of real models.

python tests/benchmarks/bench_plan.py            (minutes and 5 GiB on a CPU; on CUDA add --device cuda)

Each run trains two steps in a process of its own. On CUDA the peak is torch.cuda.max_memory_allocated; on a CPU it is
the process's largest resident memory less what it was before the model: an allocator's unused pages and the scratch
memory of oneDNN's kernels are in that too.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
DIT_1_3B = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "in_dim": 16, "out_dim": 16, "image_input": False}

VAE_SIZES = {"latent_channels": 16, "width": 96, "decoder_width": 96}


@dataclass(frozen=True)
class Case:
    """A run: the command, a name, the recipe's options; of a DiT its sizes and the shape of its latents."""

    command: str
    name: str
    options: dict
    sizes: dict | None = None
    shape: tuple = ()


def real_width_cases(num_blocks=4, shape=(16, 5, 36, 36), clip=(5, 64, 64)):
    """DiTs of the 1.3B's width with few blocks, and the full-width RGBA VAE on small clips."""
    sizes = {**DIT_1_3B, "num_layers": num_blocks}
    frames, height, width = clip
    data = {"data.num_frames": frames, "data.height": height, "data.width": width}
    plain = {"loss.perceptual": "none"}

    def dit(name, **options):
        return Case("train-dit", f"1.3B, {num_blocks} blocks, {name}", options, sizes, shape)

    return [
        dit("LoRA", **{"adapter.kind": "lora"}),
        dit("DoRA, checkpointing", **{"adapter.kind": "dora", "training.gradient_checkpointing": True}),
        dit("full, checkpointing", **{"adapter.kind": "full", "training.gradient_checkpointing": True}),
        Case("train-vae", f"RGBA VAE, full, {frames}x{height}x{width}", {**data, **plain}),
        Case(
            "train-vae",
            f"RGBA VAE, full, {frames}x{height}x{width}, checkpointing",
            {**data, **plain, "training.gradient_checkpointing": True},
        ),
    ]


def predict(case, device):
    """GiB that a plan says, without the copy of a checkpoint: none is made here."""
    from wan_alpha.models.base_vae import shape_known_vae
    from wan_alpha.models.load import shape_known_dit
    from wan_alpha.models.rgba_vae import RGBAlphaVAE
    from wan_alpha.stages import plan_dit, plan_vae
    from wan_alpha.stages.plans import Assumptions, Target

    recipe, target = _recipe(case, device, "."), Target(device, device, None)
    if case.command == "train-dit":
        dit = shape_known_dit(case.sizes)
        memory = plan_dit.memory_of_steps(dit, recipe, target, Assumptions(True), case.shape, 512)
    else:
        import torch

        with torch.device("meta"):
            vae = RGBAlphaVAE(shape_known_vae(VAE_SIZES), 128, init="random").set_trainable(recipe.model.mode)
        memory = plan_vae.memory_of_steps(vae, recipe, target, Assumptions(True), recipe.data.shapes[0])
    return memory.peak / GIB


def measure(case, device):
    """GiB of the peak of two steps of training, in this process."""
    import diffsynth.pipelines.wan_video  # noqa: F401
    import peft  # noqa: F401
    import torch

    from wan_alpha.stages.stage1_vae import ReconstructionModule, build_loss  # noqa: F401 (imports come first)
    from wan_alpha.stages.stage2_dit import WanAlphaTrainingModule  # noqa: F401
    from wan_alpha.training.loop import run_training

    with tempfile.TemporaryDirectory() as folder:
        recipe = _recipe(case, device, folder)
        _warm_up(run_training, recipe, folder)
        before = _peak(device)
        module, sample = (_dit_module if case.command == "train-dit" else _vae_module)(case, recipe)
        samples = _Samples([{**sample, "sample_seed": 0}, {**sample, "sample_seed": 1}])
        run_training(module, samples, recipe.training, Path(folder) / "run", 0, collate=_collate)
    assert torch.is_grad_enabled()
    return (_peak(device) - before) / GIB


def _recipe(case, device, folder):
    from wan_alpha.training.config import load_recipe
    from wan_alpha.training.recipes import TrainDiTRecipe, TrainVAERecipe

    shared = {
        "output_dir": folder, "training.max_steps": 2, "training.device": device, "training.trackers": "",
        "training.checkpoint_every": "none", "training.background_saving": False,
    }  # fmt: skip
    own = {"model.wan": "none here", "cache": "none here"}
    if case.command == "train-vae":
        own = {"model.base_vae": "none here", "data.base_path": "none here"}
    recipe_class = TrainDiTRecipe if case.command == "train-dit" else TrainVAERecipe
    return load_recipe(recipe_class, overrides={**shared, **own, **case.options})


def _warm_up(run_training, recipe, folder):
    """What a first run imports and allocates is no part of any one's memory."""
    import torch

    class Tiny(torch.nn.Linear):
        def forward(self, batch):
            return {"total": super().forward(batch["x"]).square().mean()}

    samples = _Samples([{"x": torch.ones(4)}, {"x": torch.ones(4)}])
    run_training(Tiny(4, 4), samples, recipe.training, Path(folder) / "warm", 0, collate=_collate)


class _Samples(list):
    def set_epoch(self, epoch):
        pass


def _collate(samples):
    import torch

    stacked = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        stacked[name] = torch.stack(values) if isinstance(values[0], torch.Tensor) else torch.tensor(values)
    return stacked


def _dit_module(case, recipe):
    import torch
    from diffsynth.pipelines.wan_video import WanVideoPipeline

    from wan_alpha.models.load import shape_known_dit
    from wan_alpha.stages.stage2_dit import WanAlphaTrainingModule

    pipe = WanVideoPipeline(device="cpu", torch_dtype=torch.float32)
    freqs = (dit := shape_known_dit(case.sizes)).freqs
    pipe.dit = _filled(dit)
    pipe.dit.freqs = freqs
    module = WanAlphaTrainingModule(pipe, recipe.adapter, recipe.objective, recipe.training.gradient_checkpointing)
    sample = {
        "latents": torch.zeros(case.shape),
        "context": torch.zeros(512, 4096),
        "ellipse": torch.zeros(case.shape[1:]),
    }
    return module, sample


def _vae_module(case, recipe):
    import torch

    from wan_alpha.models.base_vae import shape_known_vae
    from wan_alpha.models.rgba_vae import RGBAlphaVAE
    from wan_alpha.stages.stage1_vae import ReconstructionModule, build_loss, checkpoint_gradients

    vae = RGBAlphaVAE(_filled(shape_known_vae(VAE_SIZES)), 128, init="random").set_trainable(recipe.model.mode)
    bucket = recipe.data.shapes[0]
    size = (bucket.frames, bucket.height, bucket.width)
    module = ReconstructionModule(vae, build_loss(recipe.loss))
    if recipe.training.gradient_checkpointing:
        checkpoint_gradients(module)
    return module, {
        "rgb": torch.zeros(3, *size),
        "alpha": torch.ones(1, *size),
    }


def _filled(module):
    import torch

    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.02)
    return module


def _peak(device):
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_fresh_process(function, *arguments):
    """Run in a process of its own, so that its peak is the function's."""
    # glibc else keeps freed blocks of up to 32 MiB: pages that count for the process and hold no tensor.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "131072")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def compare(cases, device="cpu"):
    """Yields (case, GiB predicted, GiB measured)."""
    for case in cases:
        yield case, in_fresh_process(predict, case, device), in_fresh_process(measure, case, device)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--blocks", type=int, default=4, help="of the DiT")
    parser.add_argument("--clip", default="5x64x64", help="frames x height x width of the VAE's clips")
    parser.add_argument("--only", default="", help="runs whose name holds this")
    given = parser.parse_args()
    clip = tuple(map(int, given.clip.split("x")))
    cases = [case for case in real_width_cases(given.blocks, clip=clip) if given.only in case.name]
    print(f"{'run':<48} predicted   measured   ratio")
    for case, predicted, measured in compare(cases, given.device):
        print(f"{case.name:<48} {predicted:6.2f} GiB {measured:6.2f} GiB   {predicted / measured:.3f}", flush=True)


if __name__ == "__main__":
    main()
