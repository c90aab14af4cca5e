"""`wan-alpha generate`: prompts in, transparent clips out.

<output_dir>/
└── 000_a_red_ball/           number, the prompt's first words; a hash of the prompt if that is not all of it
    ├── frames/00000.png ...   straight RGBA                   format png
    ├── preview.mp4            over a checkerboard             format preview
    ├── alpha.mp4              the matte                       format matte
    ├── video.webm             transparent, for browsers       format webm
    ├── ...                    what else `formats` names (media/formats.py)
    ├── *.manifest.json        beside each of them: prompt, seed, model hashes, settings, how far its alpha is off
    └── settings.json          the clip as a whole: what was written, and everything needed to make it again
"""

import gc
import hashlib
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from wan_alpha.data.digests import Digests
from wan_alpha.errors import ConfigError
from wan_alpha.media.backgrounds import parse_background
from wan_alpha.media.formats import find_format
from wan_alpha.media.outputs import ClipOutputs, WrittenOutput, read_manifest, write_manifest
from wan_alpha.metrics.coverage import Coverage
from wan_alpha.training.environment import describe_environment
from wan_alpha.training.model_options import check_model_options
from wan_alpha.training.peak_memory import Peak
from wan_alpha.training.performance import measured, note_stage, recording, span_of_memory
from wan_alpha.training.progress import StageBars, StepProgress
from wan_alpha.weights.io import read_metadata
from wan_alpha.weights.wan_layout import DITS, find_wan_files

NAMED_CHARACTERS = 40  # of a prompt, in its clip's folder name


@dataclass(frozen=True)
class GeneratedClip:
    """One clip.

    Attributes:
        prompt, seed: what it was made from; folder: where it is.
        coverage: shares of clear, semi-transparent and opaque pixels.
        outputs: what was written, each with the error of its alpha as read back.
    """

    prompt: str
    seed: int
    folder: Path
    coverage: Coverage
    outputs: tuple[WrittenOutput, ...]


def generate(recipe, progress=True):
    """Generate one clip a prompt. The models are loaded one after the other, so memory holds the largest of them alone.

    Clip number i starts from the noise of seed + i. With a two-expert model each adapter goes
    where :mod:`wan_alpha.inference.expert_adapters` says.

    Args:
        recipe: a GenerateRecipe; progress: show progress bars.

    Returns:
        list of GeneratedClip, in the order of the prompts.

    Raises:
        ConfigError: no prompts, or options that do not go together.
        CheckpointError: weights that are not what they claim or do not fit.
        DataError: files that cannot be written.
    """
    from wan_alpha.inference.expert_adapters import check_adapters
    from wan_alpha.inference.placement import read_placement
    from wan_alpha.models.base_vae import check_token_grid, vae_kind_of_file
    from wan_alpha.models.causal_vae import TEMPORAL_STRIDE
    from wan_alpha.models.devices import announce, choose_compute

    prompts = read_prompts(recipe)
    check_formats(recipe)
    check_model_options(recipe)
    check_adapters(recipe.model)
    compute = announce(choose_compute(recipe.device, recipe.precision, recipe.attention))
    device, dtype = compute.device, compute.dtype
    vae = vae_kind_of_file(recipe.model.base_vae)
    check_token_grid(vae, {"height": recipe.height, "width": recipe.width})
    grid = (
        (recipe.num_frames - 1) // TEMPORAL_STRIDE + 1,
        recipe.height // vae.spatial_stride,
        recipe.width // vae.spatial_stride,
    )
    ellipse = None if recipe.mask is None else read_placement(recipe.mask, grid)
    with recording("generate", recipe.output_dir):
        return _generate(recipe, prompts, vae, grid, ellipse, device, dtype, progress)


def _generate(recipe, prompts, vae, grid, ellipse, device, dtype, progress):
    contexts, negative = _encode(recipe, prompts, device, dtype, progress)
    latents = _sample(recipe, contexts, negative, (1, vae.latent_channels, *grid), ellipse, device, dtype, progress)
    return _decode(recipe, prompts, latents, device, dtype, progress)


def read_prompts(recipe):
    """The recipe's prompts: its own, or the lines of its file without the empty ones.

    Raises:
        ConfigError: an unreadable or empty file, or an empty prompt.
    """
    if recipe.prompt is not None:
        prompts, source = [recipe.prompt.strip()], "prompt"
    else:
        source = f"prompts_file {recipe.prompts_file}"
        try:
            prompts = [line.strip() for line in recipe.prompts_file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source}: cannot be read as UTF-8 text ({error})") from error
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise ConfigError(f"{source}: expected a prompt, found none")
    return prompts


def check_formats(recipe):
    """Refuse before the models are loaded what writing would refuse at the end.

    Raises:
        ConfigError: a background that is none, a format that this ffmpeg cannot write, or options without effect.
    """
    parse_background(recipe.background)
    targets = [(Path(recipe.output_dir) / one.clip_name, one) for one in map(find_format, recipe.formats)]
    ClipOutputs(targets, recipe.fps, premultiplied=recipe.premultiplied)


def clip_folder(output_dir, index, prompt):
    """<output_dir>/<index>_<the prompt's first words>_<hash of the prompt, where the words are not all of it>.

    Prompts that begin alike have names of their own, so that clips of two runs are never taken for each other.
    """
    slug = re.sub(r"\W+", "_", prompt.lower()).strip("_")[:NAMED_CHARACTERS].strip("_")
    words = [f"{index:03d}", slug or "clip"]
    if slug.replace("_", " ") != prompt:
        words.append(hashlib.sha256(prompt.encode()).hexdigest()[:8])
    return Path(output_dir) / "_".join(words)


def check_placeholders_are_used(prompts, learned):
    """Refuse a file of placeholders that no prompt names: forgetting the word makes an ordinary clip without a word.

    Args:
        prompts: list of str; learned: pairs of path and Placeholders.

    Raises:
        ConfigError: none of a file's placeholders occurs in any prompt.
    """
    for path, placeholders in learned:
        if not any(word in prompt for word in placeholders.vectors for prompt in prompts):
            words = ", ".join(placeholders.vectors)
            raise ConfigError(f"{path}: no prompt names what it holds; write {words} where it is meant")


def _encode(recipe, prompts, device, dtype, progress):
    from wan_alpha.models.block_offload import place
    from wan_alpha.models.textual_inversion import add_placeholders, check_learned_words, check_placeholder_width
    from wan_alpha.models.wan import encode_prompts, load_tokenizer, load_wan
    from wan_alpha.weights.model_facts import text_encoder_width
    from wan_alpha.weights.textual_inversion import read_placeholders

    learned = [(path, read_placeholders(path)) for path in recipe.model.embeddings]
    check_placeholders_are_used(prompts, learned)
    width = text_encoder_width(recipe.model.wan)
    for path, placeholders in learned:
        check_placeholder_width(placeholders, width, path)
    tokenizer = find_wan_files(recipe.model.wan, parts=("tokenizer",)).tokenizer
    if learned and tokenizer:
        check_learned_words(load_tokenizer(tokenizer), learned)
    parts = ("text_encoder", "tokenizer")
    loaded_to = "cpu" if recipe.offload_blocks else device
    with measured("load: text encoder", device=device), StageBars("tensors", progress) as bars:
        pipe = load_wan(recipe.model.wan, components=parts, device=loaded_to, dtype=dtype, callback=bars)
        place(pipe.text_encoder, device, recipe.offload_blocks)
    for path, placeholders in learned:
        add_placeholders(pipe, placeholders, path)
    contexts = []
    for prompt in prompts:
        with measured("encode", 1, "captions", device):
            contexts.append(encode_prompts(pipe, [prompt]).cpu())
    negative = None if recipe.guidance == 1 else encode_prompts(pipe, [recipe.negative_prompt]).cpu()
    del pipe
    _free_memory(device)
    return contexts, negative


def _sample(recipe, contexts, negative, shape, ellipse, device, dtype, progress):
    from wan_alpha.inference.expert_adapters import merge_adapters, notes_on_bases
    from wan_alpha.inference.sampler import sample_latents
    from wan_alpha.models.block_offload import place
    from wan_alpha.models.wan import load_wan

    model, loaded_to = recipe.model, "cpu" if recipe.offload_blocks else device
    with measured("load: DiT", device=device), StageBars("tensors", progress) as bars:
        pipe = load_wan(model.wan, components=("dit",), device=loaded_to, dtype=dtype, callback=bars)
    for dit in filter(None, (pipe.dit, pipe.dit2)):
        if dit.in_dim != shape[1]:
            raise ConfigError(
                f"model.wan: its DiT takes {dit.in_dim} latent channels, model.base_vae has {shape[1]}; Wan2.1 and the "
                "A14B go with Wan2.1_VAE.pth, TI2V-5B with Wan2.2_VAE.pth"
            )
    digests = Digests(recipe.output_dir)
    with StageBars("tensors", progress) as bars:
        notes = list(notes_on_bases(pipe, model, find_wan_files(model.wan, parts=DITS), digests, bars))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    digests.save()
    merge_adapters(pipe, model)
    for dit in filter(None, (pipe.dit, pipe.dit2)):
        place(dit, device, recipe.offload_blocks)
    latents = []
    with StepProgress("sampling", recipe.num_steps * len(contexts), enabled=progress, unit="steps") as bar:
        for index, context in enumerate(contexts):
            with measured("sample", recipe.num_steps, "steps", device):
                sampled = sample_latents(
                    pipe.dit, context, shape, num_steps=recipe.num_steps, shift=recipe.shift, guidance=recipe.guidance,
                    negative_context=negative, solver=recipe.solver, seed=recipe.seed + index, ellipse=ellipse,
                    noise_shift=recipe.noise_shift, dit_low_noise=pipe.dit2, boundary=pipe.boundary,
                    callback=lambda done, total, before=index: bar.update(before * total + done),
                )  # fmt: skip
            latents.append(sampled.cpu())
    del pipe, dit
    _free_memory(device)
    return latents


def _decode(recipe, prompts, latents, device, dtype, progress):
    from wan_alpha.inference.clip_files import hash_models, write_clip
    from wan_alpha.models.rgba_vae import RGBAlphaVAE
    from wan_alpha.models.tiling import Tiling

    model = recipe.model
    with measured("load: RGBA VAE", device=device):
        vae = RGBAlphaVAE.from_pretrained(model.base_vae, model.rgba_weights, model.decoder_lora, dtype, device)
    if recipe.tiled:
        vae.tiling = Tiling(stride=vae.spatial_stride)
    with StageBars("bytes", progress) as bars:
        digests = Digests(recipe.output_dir, bars)
        models, clips = hash_models(model, digests), []
    digests.callback = None
    Path(recipe.output_dir).mkdir(parents=True, exist_ok=True)
    digests.save()
    with StepProgress("decoding", recipe.num_frames * len(prompts), enabled=progress, unit="frames") as bar:
        for index, (prompt, sampled) in enumerate(zip(prompts, latents, strict=True)):
            folder = clip_folder(recipe.output_dir, index, prompt)
            folder.mkdir(parents=True, exist_ok=True)
            begin, decoding, writing = time.perf_counter(), [], Peak("cpu")
            chunks = vae.iterate_decode(sampled.to(device), recipe.chunk_size or sampled.shape[2])
            before = index * recipe.num_frames
            record = _record(recipe, prompt, recipe.seed + index, models)
            written = write_clip(
                _timed(chunks, device, decoding, writing), folder, recipe.fps, recipe.formats,
                premultiplied=recipe.premultiplied, background=recipe.background, num_frames=recipe.num_frames,
                record=record, callback=lambda done, before=before: bar.update(before + done),
            )  # fmt: skip
            exporting = time.perf_counter() - begin - sum(decoding)
            note_stage("export", exporting, recipe.num_frames, "frames", writing)
            clip = GeneratedClip(prompt, recipe.seed + index, folder, written.coverage, written.outputs)
            _write_manifests(clip, record)
            _write_settings(clip, record, written)
            clips.append(clip)
            bar.say(_summary(clip))
    return clips


def _timed(chunks, device, seconds, writing):
    """The same chunks; what it takes to decode each is noted, and appended to ``seconds``; ``writing``, a Peak, gets
    the process's memory while the caller has them."""
    while True:
        begin = time.perf_counter()
        with span_of_memory(device) as peak:
            chunk = next(chunks, None)
            if chunk is None:
                return
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
        note_stage("decode", seconds[-1], chunk[0].shape[2], "frames", peak)
        with span_of_memory(None) as meanwhile:
            yield chunk
        writing.what, writing.bytes = meanwhile.what, max(writing.bytes, meanwhile.bytes)


def _record(recipe, prompt, seed, models):
    """Everything that makes this clip again by itself: the recipe, and hashes of the weights that it names."""
    own = recipe.as_dict() | {"prompt": prompt, "prompts_file": None, "seed": seed}
    adapter = {} if recipe.model.adapter is None else read_metadata(recipe.model.adapter)
    kept = {key: adapter[key] for key in ("kind", "rank", "alpha", "base_sha256") if key in adapter}
    return {"prompt": prompt, "seed": seed, "models": models, "adapter": kept, "recipe": own}


def _write_manifests(clip, record):
    """A manifest beside each output, as convert writes and reads them."""
    for one in clip.outputs:
        write_manifest(one, record)


def _write_settings(clip, record, written):
    """The clip as a whole: the record, what is known about the result, and its outputs."""
    outputs = [one.as_dict() | {"sha256": read_manifest(one.path)["sha256"]} for one in written.outputs]
    results = {"coverage": asdict(clip.coverage), "num_frames": written.num_frames, "outputs": outputs}
    settings = record | results | {"environment": describe_environment()}
    (clip.folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _summary(clip):
    shares = clip.coverage
    lines = [
        f"{clip.folder}: {shares.clear:.0%} clear, {shares.semi_transparent:.0%} semi-transparent, "
        f"{shares.opaque:.0%} opaque"
    ]
    return "\n".join([*lines, *(f"  {one.path.name}: {one.alpha_summary}" for one in clip.outputs if one.alpha_error)])


def _free_memory(device):
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
