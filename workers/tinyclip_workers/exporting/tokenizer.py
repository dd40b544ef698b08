"""CLIP's tokenizer in Hugging Face's file formats, whole or with the tokens of a reduced vocabulary."""

import json
from pathlib import Path
from typing import Any

from tinyclip.errors import MissingExtra

from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.tokenizers import END, START, ReducedTokenizer, TokenizerError, TokenizerSource
from tinyclip_workers.model.towers import trims_padding
from tinyclip_workers.model.vocabularies.vocabulary import REPLACEMENTS, tokenizer_document

try:
    from tokenizers import Regex, Tokenizer
    from tokenizers.normalizers import Lowercase, Normalizer, Replace, Strip
    from tokenizers.normalizers import Sequence as Normalizers
    from transformers import PreTrainedTokenizerFast
except ImportError as error:
    raise MissingExtra("export", "transformers") from error

TOKENIZER_FILE = "tokenizer.json"


def hf_tokenizer(loaded: LoadedModel) -> Any:
    """Return a tokenizer for transformers with the same ids as the model's, truncated to its context.

    Of the repairs that open_clip makes with ftfy, it makes those of curly quotes, ligatures and common HTML entities. A
    `CLIPTokenizer` cannot be used, because it replaces these rules with its own when it is loaded.
    """
    source = loaded.tokenizer_source
    if source is not None and not isinstance(loaded.tokenizer, ReducedTokenizer):
        return _own_tokenizer(source, loaded.layout.context_length)
    document = json.dumps(tokenizer_document()) if source is None else source.files[TOKENIZER_FILE].decode()
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(document), model_max_length=loaded.layout.context_length, bos_token=START,
        eos_token=END, unk_token=END, pad_token=END,
    )  # fmt: skip


def _own_tokenizer(source: TokenizerSource, context_length: int) -> Any:
    """Return the tokenizer of a student's files, truncated to its context. Raises TokenizerError for one of another kind."""
    if TOKENIZER_FILE not in source.files or source.mode is not None:
        raise TokenizerError(f"only tokenizers in a {TOKENIZER_FILE} are exported; export the student as open_clip")
    config = json.loads(source.files.get("tokenizer_config.json", b"{}"))
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    special = {name: config[name] for name in names if isinstance(config.get(name), str)}
    tokenizer = Tokenizer.from_str(source.files[TOKENIZER_FILE].decode())
    if source.clean and source.options.get("clean") == "canonicalize":  # the file of another student's does what it needs
        own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = Normalizers([*_canonical(), *own])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=context_length, **special)


def _canonical() -> list[Normalizer]:
    """Return what open_clip does to texts for SigLIP: repairs as above, no ASCII punctuation, lower case, single spaces."""
    repairs = [Replace(Regex(pattern), text) for pattern, text in REPLACEMENTS.items()]
    punctuation = [Replace("_", " "), Replace(Regex(r"[!-/:-@\[-`{-~]"), "")]
    return [*repairs, *punctuation, Lowercase(), Replace(Regex(r"\s+"), " "), Strip()]


def write_tokenizer(folder: Path, loaded: LoadedModel) -> None:
    """Write `tokenizer.json` for the `tokenizers` library: truncated to the context, padded to the longest text of a batch.

    A model that reads its padding gets what it was trained with, up to the context: of CLIP's tokenizer token 0.
    """
    tokenizer = hf_tokenizer(loaded)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(loaded.layout.context_length)
    if trims_padding(loaded.model):
        backend.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    else:
        own = loaded.tokenizer_source is not None and tokenizer.pad_token_id is not None
        padding = int(tokenizer.pad_token_id) if own else 0
        backend.enable_padding(pad_id=padding, pad_token=backend.id_to_token(padding), length=loaded.layout.context_length)
    backend.save(str(folder / TOKENIZER_FILE))
