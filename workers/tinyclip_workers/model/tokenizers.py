"""Tokenizers of models: CLIP's own, which every package ships, and those that need files, which a model's folder has."""

import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from tinyclip.schemas.layouts import AnyLayout
from torch import Tensor

from tinyclip_workers.model.documents import parse_object
from tinyclip_workers.model.layouts import CONTEXT_LENGTH

Tokenizer = Callable[[str | list[str]], Tensor]
"""Converts texts to token ids (texts, context), int64."""

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
"""Names of a tokenizer's files in a folder, as transformers writes them."""
VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
"""Those of which a folder needs one."""
SETTINGS_FILE = "tokenizer_settings.json"
"""The settings beside these files in a version or a finished stage."""
CLEANING = ("canonicalize", "lower", "whitespace")
"""open_clip's ways to prepare a text."""
STUDENT_OPTIONS = {"clean": "lower"}
"""Options of the tokenizers of students: texts are prepared as for CLIP's own."""
OWN_TOKENIZER = "tokenizer.json"
"""The name in configurations that we write. open_clip reads the files of the folder, whatever the name is."""
MAX_TOKENIZER_BYTES = 64 << 20
"""Limit of one of these files: SigLIP 2's has 34 MB."""
MAX_WORD_BYTES = 1000
"""Bytes of one word, the longest run of letters or of signs; the rest is not read. More than fit into the context length."""
MAX_REMEMBERED_WORDS = 100_000
"""Words whose tokens a tokenizer keeps."""
CONFIG_OF_TOKENIZER = "tokenizer_config.json"
BYTE_TOKENS = 512
"""CLIP's first tokens: 256 bytes within a word, and 256 at its end."""
MAX_REMEMBERED_TEXTS, MAX_REMEMBERED_CHARACTERS = 20_000, 300
"""Texts whose unknown tokens a tokenizer remembers: labels are queried again and again."""
REDUCED_FROM = "reduced_from"
"""Entry of this file, with the value `CLIP`: the vocabulary has some of CLIP's tokens (`vocabulary.py`)."""
START, END = "<|startoftext|>", "<|endoftext|>"
SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}
"""open_clip's names of CLIP's special tokens, and the usual ones, which files have."""


class TokenizerError(ValueError):
    """A tokenizer that cannot be read; the message names its files."""


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer that needs files, as `open_clip.get_tokenizer` builds it from a model's folder."""

    files: Mapping[str, bytes]
    """Content by name: some of TOKENIZER_FILES."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """`text_cfg.tokenizer_kwargs` of an open_clip configuration: `clean`, `strip_sep_token`, `language`."""
    mode: str | None = None
    """`text_cfg.tokenizer_mode`."""
    clean: bool = True
    """False for transformers' own models, whose processors pass texts on as they are."""

    def to_files(self) -> dict[str, bytes]:
        """Return the files to store, from which `from_files` restores the source."""
        settings = {"options": dict(self.options), "mode": self.mode, "clean": self.clean}
        return {**self.files, SETTINGS_FILE: json.dumps(settings, sort_keys=True).encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "TokenizerSource | None":
        """Return the source that `to_files` has stored among other files; None if there is none. Raises TokenizerError."""
        if SETTINGS_FILE not in files:
            return None
        settings = parse_object(files[SETTINGS_FILE], lambda what: TokenizerError(f"{SETTINGS_FILE} is {what}; write it again"))
        options = checked_options(settings.get("options"), SETTINGS_FILE)
        kept = {name: content for name, content in files.items() if name in TOKENIZER_FILES}
        return cls(kept, options, checked_mode(settings.get("mode"), SETTINGS_FILE), settings.get("clean") is not False)


def make_tokenizer(layout: AnyLayout, source: TokenizerSource | None = None) -> Tokenizer:
    """Return the tokenizer of a model: CLIP's byte-pair tokenizer, unless it needs files. Raises TokenizerError."""
    if source is None:
        return cast(Tokenizer, BoundedTokenizer(context_length=layout.context_length))
    if (kept := _kept_tokens(source)) is not None:
        return cast(Tokenizer, ReducedTokenizer(kept, layout.context_length))
    with tempfile.TemporaryDirectory(prefix="tinyclip-tokenizer-") as folder:
        for name, content in source.files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            made = HFTokenizer(folder, layout.context_length, tokenizer_mode=source.mode, **source.options)
        except Exception as error:  # transformers raises anything here
            names = ", ".join(sorted(source.files)) or "none"
            raise TokenizerError(f"its tokenizer cannot be built from its files ({names}); save it again") from error
    if not source.clean:
        made.clean_fn = _unchanged
    return cast(Tokenizer, made)


class BoundedTokenizer(SimpleTokenizer):  # type: ignore[misc]  # open_clip has no types
    """CLIP's byte-pair tokenizer at a bounded cost: it stops at the context length, where open_clip's cuts its result.

    The time of open_clip's grows with the square of a word's length, to three seconds for 10,000 letters, and it remembers all
    words. All tokenizers of a process share their vocabulary, which takes 20 MB, and a tenth of a second to read.
    """

    def __init__(self, context_length: int = CONTEXT_LENGTH) -> None:
        self.__dict__.update(vars(_vocabulary()))
        self.context_length = context_length
        self.cache: dict[str, str] = dict(_vocabulary().cache)

    def encode(self, text: str) -> list[int]:
        return self.encode_words(text, self.context_length)

    def encode_words(self, text: str, limit: int) -> list[int]:
        """Return the tokens of whole words, up to that with which they reach a limit."""
        tokens: list[int] = []
        for found in self.pat.finditer(self.clean_fn(text)):
            word = "".join(self.byte_encoder[byte] for byte in found.group().encode()[:MAX_WORD_BYTES])
            tokens += [self.encoder[token] for token in self.bpe(word).split(" ")]
            if len(tokens) >= limit:
                break
        if len(self.cache) > MAX_REMEMBERED_WORDS:
            self.cache = {self.decoder[id]: self.decoder[id] for id in self.all_special_ids}
        return tokens


class ReducedTokenizer(BoundedTokenizer):
    """CLIP's tokenizer with some of its tokens, numbered anew, which counts what it does not know.

    A text that uses only these has CLIP's tokens (`vocabulary.py`), any other one smaller tokens. Padding is the end of text, as
    libraries pad that read the same files.
    """

    def __init__(self, tokens: Sequence[str], context_length: int) -> None:
        """`tokens`: in the order of CLIP's ids, with the parts of each, the end of text last. Raises TokenizerError."""
        super().__init__(context_length=context_length)
        self.encoder: dict[str, int]
        self.bpe_ranks: dict[tuple[str, str], int]
        self.all_special_ids: list[int]
        known = [self.encoder.get(token, -1) for token in tokens]
        if known != sorted(set(known)) or known[:BYTE_TOKENS] != [*range(BYTE_TOKENS)] or known[-2:] != self.all_special_ids:
            raise TokenizerError("its tokenizer.json has other tokens than some of CLIP's, in their order; save it again")
        self.encoder = {token: id for id, token in enumerate(tokens)}
        self.decoder = dict(enumerate(tokens))
        self.bpe_ranks = {
            (first, second): rank for (first, second), rank in self.bpe_ranks.items()
            if {first, second, first + second} <= self.encoder.keys()
        }  # fmt: skip
        self.vocab_size = len(tokens)
        self.all_special_ids = [len(tokens) - 2, len(tokens) - 1]
        self.sot_token_id, self.eot_token_id = self.all_special_ids
        self._unknown: dict[str, int] = {}

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        tokens_BT = super().__call__(texts, context_length)
        ended_BT = (tokens_BT == self.eot_token_id).cumsum(dim=1) > 0
        return cast(Tensor, tokens_BT.masked_fill(ended_BT, self.eot_token_id))

    def unknown_tokens(self, text: str) -> int:
        """Count the tokens that CLIP's tokenizer makes of what is read of a text, and that this one does not have."""
        known = self._unknown.get(text)
        if known is None:
            whole = whole_tokenizer()
            known = sum(whole.decoder[id] not in self.encoder for id in whole.encode_words(text, self.context_length))
            if len(self._unknown) >= MAX_REMEMBERED_TEXTS:
                self._unknown = {}
            if len(text) <= MAX_REMEMBERED_CHARACTERS:
                self._unknown[text] = known
        return known


@functools.cache
def whole_tokenizer() -> BoundedTokenizer:
    """Return CLIP's own tokenizer, for its tables, which take a moment to read."""
    return BoundedTokenizer()


def is_reduced(source: TokenizerSource | None) -> bool:
    """Return whether a vocabulary was reduced from CLIP's. Raises TokenizerError."""
    return source is not None and _kept_tokens(source) is not None


def unknown_counter(tokenizer: Tokenizer) -> Callable[[str], int] | None:
    """Return what counts the tokens of a text that a reduced vocabulary does not have; None for a whole one."""
    return tokenizer.unknown_tokens if isinstance(tokenizer, ReducedTokenizer) else None


def count_unknown_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> int | None:
    """Count the tokens of texts that a reduced vocabulary does not have; None for a whole one."""
    count = unknown_counter(tokenizer)
    return sum(map(count, texts)) if count is not None else None


def _kept_tokens(source: TokenizerSource) -> list[str] | None:
    """Return the tokens of a vocabulary that was reduced from CLIP's, by their ids; None for any other. Raises TokenizerError."""
    if CONFIG_OF_TOKENIZER not in source.files or VOCABULARY_FILES[0] not in source.files:
        return None
    config = _parse(source, CONFIG_OF_TOKENIZER)
    if config.get(REDUCED_FROM) != "CLIP":
        return None
    model = _parse(source, VOCABULARY_FILES[0]).get("model")
    found = model.get("vocab") if isinstance(model, dict) else None
    vocabulary: dict[str, int] = found if isinstance(found, dict) else {}
    ids = list(vocabulary.values())
    if not ids or not all(type(id) is int for id in ids) or sorted(ids) != list(range(len(ids))):
        raise TokenizerError("its tokenizer.json has no vocabulary with the ids 0, 1, 2, …; save it again")
    usual = {name: own for own, name in SPECIAL.items()}
    return [usual.get(token, token) for token in sorted(vocabulary, key=vocabulary.__getitem__)]


def _parse(source: TokenizerSource, name: str) -> dict[str, Any]:
    return parse_object(source.files[name], lambda what: TokenizerError(f"its {name} is {what}; save it again"))


@functools.cache
def _vocabulary() -> SimpleTokenizer:
    return SimpleTokenizer()


def tokenizer_of_config(text_cfg: Mapping[str, Any], files: Mapping[str, bytes], where: str) -> TokenizerSource | None:
    """Return the tokenizer that an open_clip configuration names; None for CLIP's own.

    Raises TokenizerError, naming the files that the folder `where` lacks.
    """
    name = text_cfg.get("hf_tokenizer_name")
    if not name:
        return None
    if not any(known in files for known in VOCABULARY_FILES):
        raise TokenizerError(missing_files(where, str(name)))
    options, mode = checked_options(text_cfg.get("tokenizer_kwargs"), where), checked_mode(text_cfg.get("tokenizer_mode"), where)
    return TokenizerSource(files, options, mode)


def checked_options(options: object, where: str) -> dict[str, Any]:
    """Return settings for open_clip's tokenizer, if they are all known. Raises TokenizerError."""
    if options is None:
        return {}
    kinds = {"clean": str, "strip_sep_token": bool, "language": str}
    if not isinstance(options, dict) or not all(type(value) is kinds.get(name) for name, value in options.items()):
        raise TokenizerError(f"{where} has tokenizer_kwargs other than clean, strip_sep_token and language; remove them")
    if options.get("clean", "lower") not in CLEANING:
        raise TokenizerError(f"{where} has a tokenizer_kwargs.clean that is not one of {', '.join(CLEANING)}; correct it")
    return options


def checked_mode(mode: object, where: str) -> str | None:
    """Return open_clip's `tokenizer_mode`. Raises TokenizerError."""
    if mode not in (None, "", "clips"):
        raise TokenizerError(f"{where} has a tokenizer_mode that open_clip does not know; remove it")
    return str(mode) if mode else None


def missing_files(where: str, name: str) -> str:
    """Return the message for a tokenizer whose files are missing."""
    return (
        f"{where} needs the files of the tokenizer {name[:100]}: put tokenizer.json and tokenizer_config.json "
        f"(or what its repository has of {', '.join(VOCABULARY_FILES[1:])}) into the model's folder"
    )


def config_of_tokenizer(source: TokenizerSource | None) -> dict[str, Any]:
    """Return the settings of an open_clip `text_cfg` by which a folder with a tokenizer's files is read."""
    if source is None:
        return {}
    mode = {"tokenizer_mode": source.mode} if source.mode else {}
    return {"hf_tokenizer_name": OWN_TOKENIZER, "tokenizer_kwargs": dict(source.options), **mode}


def _unchanged(text: str) -> str:
    return text
