"""CLIP's vocabulary reduced to the tokens of some texts: a smaller embedding table, and the tokenizer that goes with it.

Most of a small student is its token embedding, and its texts use a tenth of the tokens. A reduced vocabulary keeps

- the tokens that the texts use,
- the parts that these are merged from, and the parts of those,
- the tokens of single bytes, within a word and at its end, so that every text has tokens,
- start and end of text, the last as the largest id, where text towers read the embedding.

Ids are numbered anew in the order of the old ones, and merges keep their order of priority.

**Texts that use only kept tokens have the same tokens as before.** Byte-pair encoding merges the pair of the highest priority of
a word until there is none. Every token that is not a byte is the result of exactly one merge, so whatever was merged within the
span of a final token are the parts that this token is made from. They are kept, so the merges that CLIP's tokenizer makes in such
a word are all available. At each step the pair that it chooses has the highest priority of all merges, and therefore also of
those that are kept. Both tokenizers start with the same bytes, make the same merges, and end when none is left.

Any other word is read as smaller kept tokens, at worst its bytes. A text has then other tokens, and another embedding, than
before; nothing fails.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tinyclip.schemas.layouts import AnyLayout, Layout
from torch import Tensor

from tinyclip_workers.model.architecture import build_clip
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.files.weights import EMBEDDING
from tinyclip_workers.model.layouts import VOCAB_SIZE
from tinyclip_workers.model.tokenizers import (
    BYTE_TOKENS,
    CONFIG_OF_TOKENIZER,
    END,
    REDUCED_FROM,
    SPECIAL,
    START,
    STUDENT_OPTIONS,
    VOCABULARY_FILES,
    TokenizerSource,
    make_tokenizer,
    whole_tokenizer,
)

REPLACEMENTS = {
    "[\u02bc\u2018-\u201b]": "'", "[\u201c-\u201f]": '"', "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi",
    "\ufb04": "ffl", "&(amp;)+": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&(#0*39|apos);": "'", "&nbsp;": " ",
}
"""The most frequent repairs that open_clip makes with ftfy, for libraries that read `tokenizer.json` without it."""
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class NotReducible(ValueError):
    """A model whose vocabulary is not the whole one of CLIP's tokenizer."""


@dataclass(frozen=True)
class Vocabulary:
    """Some of CLIP's tokens, by their ids there, in ascending order."""

    ids: tuple[int, ...]

    @classmethod
    def of_tokens(cls, used: Iterable[int]) -> "Vocabulary":
        """Return the smallest vocabulary that reads texts of these tokens as CLIP does."""
        clip, parts = whole_tokenizer(), _parts()
        kept = {*range(BYTE_TOKENS), *clip.all_special_ids}
        waiting = [token for token in used if token not in kept]
        while waiting:
            token = waiting.pop()
            if token not in kept:
                kept.add(token)
                waiting += parts[token]
        return cls(tuple(sorted(kept)))

    def __len__(self) -> int:
        return len(self.ids)

    def tokenizer(self) -> TokenizerSource:
        """Return the tokenizer's files, which open_clip and transformers read as well."""
        document = tokenizer_document(self.ids)
        special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **special, REDUCED_FROM: "CLIP"}
        files = {VOCABULARY_FILES[0]: json.dumps(document), CONFIG_OF_TOKENIZER: json.dumps(config, indent=1)}
        return TokenizerSource({name: text.encode() for name, text in files.items()}, STUDENT_OPTIONS)

    def reduce(self, layout: Layout, state: Mapping[str, Tensor]) -> tuple[Layout, dict[str, Tensor]]:
        """Return layout and state dict of a model with the embeddings of these tokens only."""
        text = layout.text.model_copy(update={"vocab_size": len(self)})
        table_Vd = state[EMBEDDING][torch.tensor(self.ids)].clone()
        return layout.model_copy(update={"text": text}), {**state, EMBEDDING: table_Vd}


def tokens_of(texts: Iterable[str], context_length: int) -> set[int]:
    """Return the CLIP tokens of texts: of all words that begin within the context length."""
    clip = whole_tokenizer()
    return {token for text in texts for token in clip.encode_words(text, context_length)}


def reducible_layout(layout: AnyLayout, tokenizer: TokenizerSource | None) -> Layout:
    """Return the layout of a model with the whole vocabulary of CLIP. Raises NotReducible for any other."""
    if not isinstance(layout, Layout):
        raise NotReducible(f"it is a {layout.family}; only plain CLIP models can have a reduced vocabulary")
    if tokenizer is not None:
        raise NotReducible("it has a tokenizer of its own; only the vocabulary of CLIP's can be reduced")
    if layout.vocab_size != VOCAB_SIZE:
        raise NotReducible(f"it has {layout.vocab_size:,} tokens, and CLIP's tokenizer {VOCAB_SIZE:,}; export it whole")
    return layout


def reduced_model(loaded: LoadedModel, vocabulary: Vocabulary) -> LoadedModel:
    """Return a copy of a model with a reduced vocabulary. Raises NotReducible."""
    whole = reducible_layout(loaded.layout, loaded.tokenizer_source)
    layout, state = vocabulary.reduce(whole, loaded.model.state_dict())
    model, source = build_clip(layout), vocabulary.tokenizer()
    model.load_state_dict(state)
    return replace(
        loaded, model=model.eval(), layout=layout, tokenizer=make_tokenizer(layout, source), tokenizer_source=source
    )


def tokenizer_document(ids: Sequence[int] | None = None) -> dict[str, Any]:
    """Return CLIP's tokenizer, or one of some of its tokens, as a `tokenizer.json`.

    Texts need no preparation: the repairs, lower case and white space of open_clip are part of it.
    """
    clip = whole_tokenizer()
    tokens = [clip.decoder[id] for id in (range(VOCAB_SIZE) if ids is None else ids)]
    vocabulary = {SPECIAL.get(token, token): id for id, token in enumerate(tokens)}
    kept = set(tokens)
    start, end = vocabulary[START], vocabulary[END]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    words = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": True}
    repairs = [_replace(pattern, text) for pattern, text in REPLACEMENTS.items()]
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": id, "content": token, **special} for token, id in ((START, start), (END, end))],
        "normalizer": _sequence("normalizers", *repairs, {"type": "NFC"}, _replace(r"\s+", " "), {"type": "Lowercase"}),
        "pre_tokenizer": _sequence("pretokenizers", words, _byte_level(False)),
        "post_processor": {
            "type": "RobertaProcessing", "sep": [END, end], "cls": [START, start], "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": _byte_level(True),
        "model": {
            "type": "BPE", "dropout": None, "unk_token": END, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary,
            "merges": [list(pair) for pair in clip.bpe_ranks if "".join(pair) in kept],
        },
    }  # fmt: skip


@functools.cache
def _parts() -> dict[int, tuple[int, int]]:
    """Return the two parts of every token that is the result of a merge."""
    encoder = whole_tokenizer().encoder
    return {encoder[first + second]: (encoder[first], encoder[second]) for first, second in whole_tokenizer().bpe_ranks}


def _sequence(name: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", name: list(parts)}


def _replace(pattern: str, text: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": text}


def _byte_level(prefix: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
