"""Textual inversion: placeholders, words that the text encoder learns as new rows of its embedding, the rest frozen.

A placeholder of n vectors is n tokens; a caption names it once and the tokenizer is given all n:

    "a photo of <cat>"  ->  "a photo of <cat> <cat>_1 <cat>_2"

(Gal et al. 2022, "An Image is Worth One Word", Section 4; several vectors a word as in its released code.)
"""

import re

import torch
import torch.nn.functional as F
from torch import nn

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.weights.textual_inversion import Placeholders


class PlaceholderEmbedding(nn.Module):
    """An embedding whose frozen table is extended by learned rows.

    Attributes:
        table: the text encoder's own ``nn.Embedding``; words: the placeholders; vectors: (n, width) float32 of each, in
            its unit. Text encoders' embeddings differ in size a hundredfold; in units of its own size a vector moves by
            the learning rate's share a step, whatever the encoder.
    """

    def __init__(self, table):
        super().__init__()
        self.table = table
        self.words, self.units = [], []
        self.vectors = nn.ParameterList()
        self.register_buffer("token_ids", torch.empty(0, dtype=torch.long), persistent=False)

    @property
    def weight(self):
        """The frozen table's weight: where and in what dtype the encoder computes."""
        return self.table.weight

    def add(self, word, vectors, token_ids, unit=1.0):
        """Learn a placeholder.

        Args:
            word: its name; vectors: (n, width); token_ids: the n numbers that the tokenizer gave it;
                unit: what one is of the parameter that is trained.
        """
        device = self.table.weight.device
        self.words.append(word)
        self.units.append(unit)
        self.vectors.append(nn.Parameter((vectors.detach().float() / unit).to(device)))
        self.token_ids = torch.cat([self.token_ids, torch.tensor(token_ids, device=device)])

    def rows(self):
        """placeholder -> (n, width) float32, as the encoder sees them."""
        return {word: unit * vectors for word, unit, vectors in zip(self.words, self.units, self.vectors, strict=True)}

    def forward(self, ids):
        """(B, L) int64 -> (B, L, width) in the table's dtype."""
        if not self.words:
            return self.table(ids)
        matches = ids.unsqueeze(-1) == self.token_ids
        is_new = matches.any(-1)
        # A new token's number may lie past the table's end.
        known = self.table(ids.masked_fill(is_new, 0))
        rows = torch.cat(list(self.rows().values())).to(known.dtype)
        return torch.where(is_new.unsqueeze(-1), F.embedding(matches.to(torch.uint8).argmax(-1), rows), known)


class PlaceholderTokenizer:
    """Wan's tokenizer with placeholders: a caption that names one is given all of its tokens.

    Args:
        tokenizer: diffsynth's ``HuggingfaceTokenizer``; it is changed in place.
    """

    def __init__(self, tokenizer):
        self.base = tokenizer
        self.tokens = {}

    def __getattr__(self, name):
        return getattr(self.base, name)

    def add(self, word, num_vectors) -> list[int]:
        """Learn a placeholder; returns the numbers of its tokens.

        Raises:
            ConfigError: no word, one that the tokenizer or an earlier placeholder has, or more vectors than a caption
                has room for.
        """
        if not word or word != word.strip() or re.search(r"\s", word):
            raise ConfigError(f"placeholder {word!r}: a word without spaces is needed, for example <my-cat>")
        if num_vectors >= self.base.seq_len:
            raise ConfigError(
                f"placeholder {word!r}: {num_vectors} vectors do not fit into a caption of this text encoder, "
                f"{self.base.seq_len} tokens with its end: at most {self.base.seq_len - 1}; fewer leave room for words"
            )
        vocabulary = self.base.tokenizer.get_vocab()
        names = [word, *(f"{word}_{number}" for number in range(1, num_vectors))]
        taken = {name: other for other, own in self.tokens.items() for name in own}
        for name in names:
            if name in taken:
                other = "is learned already" if taken[name] == word else f"needs {name!r}, a part of {taken[name]!r}"
                raise ConfigError(f"placeholder {word!r} {other}: one vocabulary holds a word once")
            if name in vocabulary or f"\u2581{name}" in vocabulary:
                raise ConfigError(
                    f"placeholder {word!r}: the tokenizer knows {name!r} already, so its captions would change; "
                    f"choose another, for example <{word.strip('<>')}-1>"
                )
        self.base.tokenizer.add_tokens(names)
        self.tokens[word] = names
        return self.base.tokenizer.convert_tokens_to_ids(names)

    def spell(self, caption) -> str:
        """The caption with each placeholder written as all of its tokens."""
        if not self.tokens:
            return caption
        # The longest first: <cat> must not be found within <cat>_big.
        words = sorted(self.tokens, key=len, reverse=True)
        found = re.compile("|".join(map(re.escape, words)))
        return found.sub(lambda match: " ".join(self.tokens[match[0]]), caption)

    def __call__(self, sequence, **options):
        captions = [sequence] if isinstance(sequence, str) else sequence
        return self.base([self.spell(caption) for caption in captions], **options)


def add_placeholders(pipe, placeholders: Placeholders, source="the file", units=None) -> PlaceholderEmbedding:
    """Teach a pipeline's text encoder and tokenizer placeholders that were learned before.

    Args:
        pipe: with text encoder and tokenizer; changed in place. placeholders: what was learned; source: for messages;
            units: of the placeholders, where they are to be trained.

    Returns:
        the text encoder's embedding, whose ``vectors`` are the placeholders'.

    Raises:
        CheckpointError: vectors of another text encoder's width.
        ConfigError: a placeholder that the tokenizer knows already.
    """
    embedding = _extended(pipe)
    check_placeholder_width(placeholders, embedding.weight.shape[1], source)
    for word, vectors in placeholders.vectors.items():
        embedding.add(word, vectors, pipe.tokenizer.add(word, len(vectors)), (units or {}).get(word, 1.0))
    return embedding


def check_placeholder_width(placeholders: Placeholders, width, source="the file"):
    """Refuse placeholders that were learned with a text encoder of another width; None fits any.

    Raises:
        CheckpointError: it names the file, the word and both widths.
    """
    for word, vectors in placeholders.vectors.items():
        if width is not None and vectors.shape[1] != width:
            raise CheckpointError(
                f"{source}: {word} has vectors of {vectors.shape[1]} numbers, this text encoder's have {width}; it was "
                "learned with another text encoder: use it with that one, or learn the word again with this one"
            )


def start_placeholders(pipe, initializers, num_vectors=1) -> PlaceholderEmbedding:
    """Give a pipeline's text encoder placeholders that begin as known words.

    A placeholder's vectors begin as those of its initializer's pieces in turn, the last one repeated; one of a single
    vector begins as their mean.

    Args:
        pipe: with text encoder and tokenizer; changed in place. initializers: placeholder -> known word or words;
        num_vectors: of each placeholder.

    Raises:
        ConfigError: a placeholder that the tokenizer knows already, or an initializer that it does not know.
    """
    vectors = {}
    for word, known in initializers.items():
        pieces = _known_vectors(pipe, word, known)
        if num_vectors == 1:
            vectors[word] = pieces.mean(dim=0, keepdim=True)
        else:
            vectors[word] = pieces[torch.arange(num_vectors).clamp(max=len(pieces) - 1)]
    units = {word: float(value.square().mean().sqrt()) or 1.0 for word, value in vectors.items()}
    return add_placeholders(pipe, Placeholders(vectors), units=units)


def check_words(tokenizer, word, known, num_vectors=1):
    """What :func:`start_placeholders` would refuse, told by the tokenizer alone, before any weight is loaded.

    Args:
        tokenizer: as loaded, without placeholders; it is spent. word: placeholder; known: its initializer.

    Returns:
        a PlaceholderTokenizer that knows the word.

    Raises:
        ConfigError: as there.
    """
    _known_ids(tokenizer, word, known)
    taught = PlaceholderTokenizer(tokenizer)
    taught.add(word, num_vectors)
    return taught


def check_learned_words(tokenizer, learned):
    """What :func:`add_placeholders` would refuse of words, told by the tokenizer alone, before any weight is loaded.

    Args:
        tokenizer: as loaded, without placeholders; it is spent. learned: pairs of path and Placeholders.

    Raises:
        ConfigError: a word that the tokenizer knows, or that two files hold.
    """
    taught, origin = PlaceholderTokenizer(tokenizer), {}
    for path, placeholders in learned:
        for word, vectors in placeholders.vectors.items():
            if word in origin:
                raise ConfigError(f"{path}: {word} is learned in {origin[word]} too; a prompt's word has one meaning: "
                                  "give one of the two files")  # fmt: skip
            origin[word] = path
            try:
                taught.add(word, len(vectors))
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from error


def learned_placeholders(pipe) -> dict:
    """placeholder -> (n, width) float32 of a pipeline; {} where it has none."""
    embedding = pipe.text_encoder.token_embedding
    if not isinstance(embedding, PlaceholderEmbedding):
        return {}
    return {word: rows.detach() for word, rows in embedding.rows().items()}


def _extended(pipe):
    if not isinstance(pipe.text_encoder.token_embedding, PlaceholderEmbedding):
        pipe.text_encoder.token_embedding = PlaceholderEmbedding(pipe.text_encoder.token_embedding)
        pipe.tokenizer = PlaceholderTokenizer(pipe.tokenizer)
    return pipe.text_encoder.token_embedding


def _known_ids(tokenizer, word, known):
    ids = tokenizer.tokenizer(known, add_special_tokens=False).input_ids
    if not ids or tokenizer.tokenizer.unk_token_id in ids:
        raise ConfigError(f"initializer {known!r} of {word!r}: the tokenizer does not know it; give a common word")
    return ids


def _known_vectors(pipe, word, known):
    ids = _known_ids(pipe.tokenizer, word, known)
    embedding = pipe.text_encoder.token_embedding
    table = embedding.table if isinstance(embedding, PlaceholderEmbedding) else embedding
    return table.weight.detach()[torch.tensor(ids, device=table.weight.device)].float()
