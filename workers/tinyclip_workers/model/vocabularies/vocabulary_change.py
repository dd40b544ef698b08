"""A model with another vocabulary: each new token is embedded as tokens of the parent that mean the same.

V tokens of the new vocabulary, P of the parent's, d the width of the text tower.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from open_clip.tokenizer import bytes_to_unicode
from tinyclip.schemas import Layout
from torch import Tensor

from tinyclip_workers.model.files.weights import EMBEDDING
from tinyclip_workers.model.tokenizers import BoundedTokenizer, Tokenizer, TokenizerError, TokenizerSource
from tinyclip_workers.model.vocabularies.alignment import Weighted
from tinyclip_workers.model.vocabularies.tokenizer_training import END, END_OF_WORD, PAD, START, merge_word

PROBE = "a b"
"""A text that every tokenizer has some tokens for."""

Origins = list[list[Weighted]]
"""For each new token, tokens of the parent with weights, the best choice first; the first one counts whose rows there are."""


def vocabulary_of(source: TokenizerSource) -> list[str]:
    """Return the tokens of a tokenizer by id. Raises TokenizerError for one whose tokens are not in a `tokenizer.json`."""
    try:
        document = json.loads(source.files["tokenizer.json"])
        ids: dict[str, int] = {**document["model"]["vocab"], **{each["content"]: each["id"] for each in document["added_tokens"]}}
        tokens = [f"<{id}>" for id in range(1 + max(ids.values()))]
        for token, id in ids.items():
            tokens[id] = token
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise TokenizerError("a student's tokenizer needs a tokenizer.json with a model of tokens and their ids") from error
    return tokens


def check_end_of_text(tokenize: Tokenizer, vocab_size: int) -> None:
    """Raise TokenizerError unless the end of a text has the largest id: embeddings are read at the largest."""
    tokens = tokenize([PROBE, ""])
    ends = {int(row.max()) for row in tokens}
    if ends != {vocab_size - 1}:
        raise TokenizerError(f"the end of a text must be the token of the largest id, {vocab_size - 1}; its texts have {ends}")


def find_origins(tokens: Sequence[str], parent: Tokenizer, aligned: Mapping[int, Weighted]) -> Origins:
    """Return the tokens of the parent that each of these tokens starts as.

    That is the same token; else those that it stands for in translations (`aligned`); else the pieces that make up its text.
    """
    pieces, origins = _pieces(parent), Origins()
    for id, token in enumerate(tokens):
        own = pieces(token)
        choices = [[(own[0], 1.0)]] if len(own) == 1 else []
        choices += [aligned[id]] if id in aligned else []
        choices += [[(piece, 1 / len(own)) for piece in own]] if len(own) > 1 else []
        origins.append(choices)
    return origins


def plain_tokens(tokenize: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a text without those for beginning, end and padding."""
    if isinstance(tokenize, BoundedTokenizer):
        return tokenize.encode(text)
    special = {int(id) for id in tokenize("")[0]}
    return [int(id) for id in tokenize(text)[0] if int(id) not in special]


def with_vocabulary(
    state: Mapping[str, Tensor], layout: Layout, origins: Origins, seed: int
) -> tuple[dict[str, Tensor], Layout]:
    """Return a model with one row of token embedding for each new token: the weighted mean of those of its origins.

    Rows of zeros, which a compact copy has for the tokens that it leaves out, do not count. A token without an origin has a
    random row.
    """
    table_Pd = state[EMBEDDING].detach().float().cpu()
    known_P = table_Pd.abs().sum(dim=1) > 0
    scale = float(table_Pd[known_P].std()) if int(known_P.sum()) > 1 else 0.02
    table_Vd = scale * torch.randn(len(origins), table_Pd.shape[1], generator=torch.Generator().manual_seed(seed))
    for row, choices in enumerate(origins):
        known = ([(id, weight) for id, weight in choice if known_P[id]] for choice in choices)
        chosen = next((choice for choice in known if choice), None)
        if chosen is not None:
            weights = torch.tensor([weight for _, weight in chosen])
            table_Vd[row] = weights / weights.sum() @ table_Pd[[id for id, _ in chosen]]
    text = layout.text.model_copy(update={"vocab_size": len(origins)})
    return {**state, EMBEDDING: table_Vd.to(state[EMBEDDING].device)}, layout.model_copy(update={"text": text})


def origins_to_json(origins: Origins) -> bytes:
    return json.dumps(origins).encode()


def origins_from_json(data: bytes) -> Origins:
    found: list[list[list[Any]]] = json.loads(data)
    return [[[(int(id), float(weight)) for id, weight in choice] for choice in choices] for choices in found]


def _pieces(parent: Tokenizer) -> Callable[[str], list[int]]:
    """Return a function from a token, as it is written in a byte-level vocabulary, to the parent's tokens of its text."""
    start, end = _start_and_end(parent)
    special = {START: [start], END: [end], PAD: []}
    if isinstance(parent, BoundedTokenizer):
        return lambda token: special[token] if token in special else _clip_pieces(parent, token)
    bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}

    def pieces(token: str) -> list[int]:
        if token in special:
            return special[token]
        text = _text_of(token, bytes_of)
        return plain_tokens(parent, text) if text else []

    return pieces


def _start_and_end(parent: Tokenizer) -> tuple[int, int]:
    """Return the tokens around a text; for a tokenizer without a first one, the end for both. Raises TokenizerError."""
    own, empty = [int(id) for id in parent(PROBE)[0]], [int(id) for id in parent("")[0]]
    places = [place for place, id in enumerate(own) if id not in empty]
    if not places or places[-1] + 1 == len(own):
        raise TokenizerError(
            f"the teacher's tokenizer has no tokens for the text {PROBE!r} with an end, so no others can start as its tokens; "
            "omit tokenizer, or name another teacher"
        )
    return empty[0], own[places[-1] + 1]


def _clip_pieces(parent: BoundedTokenizer, token: str) -> list[int]:
    """Merge the characters of a token as CLIP's tokenizer does, also where it is not the end of a word."""
    characters = list(token.removesuffix(END_OF_WORD).replace("Ġ", ""))
    if not characters or not set(characters) <= set(parent.byte_encoder.values()):
        return []
    if token.endswith(END_OF_WORD):
        characters[-1] += END_OF_WORD
    merge_word(characters, parent.bpe_ranks)
    return [parent.encoder[each] for each in characters]


def _text_of(token: str, bytes_of: Mapping[str, int]) -> str:
    """Return the text of a token of a byte-level vocabulary; "" for one that is part of a character, or of another kind."""
    try:
        return bytes(bytes_of[character] for character in token.removesuffix(END_OF_WORD)).decode().strip()
    except (KeyError, UnicodeDecodeError):
        return ""
