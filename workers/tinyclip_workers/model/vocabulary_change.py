"""A model with another vocabulary: each new token is embedded as the tokens of the parent that make up the same text.

V tokens of the new vocabulary, P of the parent's, d the width of the text tower.
"""

import json
from collections.abc import Callable, Mapping, Sequence

import torch
from open_clip.tokenizer import bytes_to_unicode
from tinyclip.schemas import Layout
from torch import Tensor

from tinyclip_workers.model.tokenizer_training import END, END_OF_WORD, PAD, START
from tinyclip_workers.model.tokenizers import BoundedTokenizer, Tokenizer, TokenizerError, TokenizerSource
from tinyclip_workers.model.weights import EMBEDDING

PROBE = "a b"
"""A text that every tokenizer has some tokens for."""


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


def with_vocabulary(
    state: Mapping[str, Tensor], layout: Layout, parent: Tokenizer, tokens: Sequence[str], seed: int
) -> tuple[dict[str, Tensor], Layout]:
    """Return a model whose token embedding has a row for each of these tokens.

    A row is the mean of those of the parent's tokens of the same text; where the parent has none, or only rows of zeros, which a
    compact copy lacks, it is random as its rows are.
    """
    table_Pd = state[EMBEDDING].float()
    known_P = table_Pd.abs().sum(dim=1) > 0
    scale = float(table_Pd[known_P].std()) if int(known_P.sum()) > 1 else 0.02
    table_Vd = scale * torch.randn(len(tokens), table_Pd.shape[1], generator=torch.Generator().manual_seed(seed))
    pieces = _pieces(parent)
    for row, token in enumerate(tokens):
        ids = [id for id in pieces(token) if known_P[id]]
        if ids:
            table_Vd[row] = table_Pd[ids].mean(dim=0)
    text = layout.text.model_copy(update={"vocab_size": len(tokens)})
    return {**state, EMBEDDING: table_Vd.to(table_Pd)}, layout.model_copy(update={"text": text})


def _pieces(parent: Tokenizer) -> Callable[[str], list[int]]:
    """Return a function from a token, as it is written in a byte-level vocabulary, to the parent's tokens of its text."""
    start, end = (int(parent(PROBE)[0].select(0, 0)), int(parent(PROBE)[0].max()))
    special = {START: [start], END: [end], PAD: [0]}
    if isinstance(parent, BoundedTokenizer):
        return lambda token: special[token] if token in special else _clip_pieces(parent, token)
    padding = int(parent("")[0][-1])
    bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}

    def pieces(token: str) -> list[int]:
        if token in special:
            return special[token]
        text = _text_of(token, bytes_of)
        return [int(id) for id in parent(text)[0] if int(id) not in (start, end, padding)] if text else []

    return pieces


def _clip_pieces(parent: BoundedTokenizer, token: str) -> list[int]:
    """Merge the characters of a token as CLIP's tokenizer does, also where it is not the end of a word."""
    characters = list(token.removesuffix(END_OF_WORD).replace("Ġ", ""))
    if not characters or not set(characters) <= set(parent.byte_encoder.values()):
        return []
    if token.endswith(END_OF_WORD):
        characters[-1] += END_OF_WORD
    while len(characters) > 1:
        ranks = [parent.bpe_ranks.get(pair, len(parent.bpe_ranks)) for pair in zip(characters, characters[1:], strict=False)]
        best = min(range(len(ranks)), key=ranks.__getitem__)
        if ranks[best] == len(parent.bpe_ranks):
            break
        characters[best : best + 2] = [characters[best] + characters[best + 1]]
    return [parent.encoder[each] for each in characters]


def _text_of(token: str, bytes_of: Mapping[str, int]) -> str:
    """Return the text of a token of a byte-level vocabulary; "" for one that is part of a character, or of another kind."""
    try:
        return bytes(bytes_of[character] for character in token.removesuffix(END_OF_WORD)).decode().strip()
    except (KeyError, UnicodeDecodeError):
        return ""
