"""Textual inversion in stage 2: captions are encoded in each step, and a placeholder learns with the loss."""

import torch
from torch import nn

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.checkpointed import Checkpointed
from wan_alpha.models.textual_inversion import check_words, learned_placeholders, start_placeholders
from wan_alpha.models.wan import encode_prompts_with_gradient, load_tokenizer, load_wan
from wan_alpha.weights.textual_inversion import placeholder_metadata
from wan_alpha.weights.wan_layout import find_wan_files

EMBEDDINGS_FILE = "embeddings.safetensors"


class CaptionEncoder(nn.Module):
    """The frozen text encoder with a placeholder that learns.

    Args:
        source: Wan model with text encoder and tokenizer; settings: TextualInversionSettings with a placeholder; dtype:
            of the frozen encoder; callback: as that of ``load_wan``.

    Raises:
        ConfigError: the tokenizer knows the placeholder already, or does not know the initializer.
        CheckpointError: weights that are not what they claim.
    """

    def __init__(self, source, settings, dtype=torch.float32, callback=None):
        super().__init__()
        self.settings = settings
        parts = ("text_encoder", "tokenizer")
        pipe = load_wan(source, components=parts, device="cpu", dtype=dtype, callback=callback)
        embedding = start_placeholders(pipe, {settings.placeholder: settings.initializer}, settings.num_vectors)
        self.text_encoder = pipe.text_encoder.requires_grad_(False)
        self.tokenizer = pipe.tokenizer
        embedding.vectors.requires_grad_(True)

    def train(self, mode=True):
        """As ever, but for the text encoder: it is frozen, and its dropout would blur what the captions say."""
        super().train(mode)
        self.text_encoder.eval()
        return self

    def forward(self, captions):
        """Contexts (B, L, text_dim) of captions, differentiable in the placeholder's vectors."""
        return encode_prompts_with_gradient(self, captions).float()

    def files(self, card=None) -> dict:
        """The placeholder alone: file name -> (tensors, metadata); ``card``: an AdapterCard of where it is from."""
        vectors = learned_placeholders(self)
        metadata = placeholder_metadata(vectors, {self.settings.placeholder: self.settings.initializer}, card)
        return {EMBEDDINGS_FILE: (vectors, metadata)}


def checkpoint_blocks(text_encoder) -> None:
    """Compute the encoder's blocks again in the backward pass; comes after what is done to their weights."""
    text_encoder.blocks = nn.ModuleList(map(Checkpointed, text_encoder.blocks))


def check_placeholder(source, settings, prompts) -> None:
    """Refuse what a placeholder cannot be, by tokenizer and captions alone, before any weight is loaded.

    Args:
        source: Wan model; settings: TextualInversionSettings with a placeholder; prompts: captions of the cache.

    Raises:
        ConfigError: as :func:`check_word`.
        CheckpointError: no tokenizer there.
    """
    folder = find_wan_files(source, parts=("tokenizer",)).tokenizer
    if not folder:
        raise CheckpointError(f"{source}: holds no tokenizer (google/umt5-xxl), to learn a word with")
    check_word(settings, prompts, folder)


def check_word(settings, prompts=None, tokenizer_folder=None) -> None:
    """As :func:`check_placeholder`, as far as captions and tokenizer are there.

    Raises:
        ConfigError: no word; one that the tokenizer knows, an initializer that it does not know, more vectors than a
            caption has room for; no caption names the placeholder, or one is cut before its end.
    """
    if prompts is not None:
        check_captions_name(settings.placeholder, prompts)
    if tokenizer_folder is None:
        return
    tokenizer = load_tokenizer(tokenizer_folder)
    taught = check_words(tokenizer, settings.placeholder, settings.initializer, settings.num_vectors)
    named = [prompt for prompt in dict.fromkeys(prompts or ()) if settings.placeholder in prompt]
    last = tokenizer.tokenizer.convert_tokens_to_ids(taught.tokens[settings.placeholder][-1])
    for caption in named:
        if not (taught(caption, add_special_tokens=True) == last).any():
            raise ConfigError(
                f"textual_inversion.placeholder = {settings.placeholder!r}: the text encoder takes {tokenizer.seq_len} "
                f"tokens of a caption, and {caption!r} is cut before the placeholder's last; write the word earlier, "
                "or give fewer textual_inversion.num_vectors"
            )


def check_captions_name(placeholder, prompts) -> None:
    """Refuse a dataset that teaches the placeholder nothing.

    Raises:
        ConfigError: no caption names it.
    """
    if not any(placeholder in prompt for prompt in prompts):
        raise ConfigError(
            f"textual_inversion.placeholder = {placeholder!r}: none of the cache's {len(prompts)} captions names it, "
            f'as in "a video of {placeholder}"; write it into the dataset\'s captions and run `wan-alpha cache` again'
        )
