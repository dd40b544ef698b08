"""CLIP's tokenizer in Hugging Face's file formats, created from open_clip's tables."""

from pathlib import Path
from typing import Any

from open_clip.tokenizer import SimpleTokenizer
from tinyclip.errors import MissingExtra

try:
    from tokenizers import Regex
    from tokenizers.normalizers import Replace, Sequence
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast
except ImportError as error:
    raise MissingExtra("export", "transformers") from error

TOKENIZER_FILE = "tokenizer.json"
START, END = "<|startoftext|>", "<|endoftext|>"
SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}
"""open_clip's names, and the usual ones."""
REPLACEMENTS = {
    "[\u02bc\u2018-\u201b]": "'", "[\u201c-\u201f]": '"', "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi",
    "\ufb04": "ffl", "&(amp;)+": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&(#0*39|apos);": "'", "&nbsp;": " ",
}


def hf_tokenizer(context_length: int) -> Any:
    """Return a tokenizer for transformers with the same ids as open_clip's, truncated to the model's context.

    Of the repairs that open_clip makes with ftfy, it makes those of curly quotes, ligatures and common HTML entities. A
    `CLIPTokenizer` cannot be used, because it replaces these rules with its own when it is loaded.
    """
    ours = SimpleTokenizer()
    vocab = {SPECIAL.get(token, token): id for token, id in ours.encoder.items()}
    backend = CLIPTokenizer(vocab=vocab, merges=[*ours.bpe_ranks]).backend_tokenizer
    repairs = [Replace(Regex(pattern), text) for pattern, text in REPLACEMENTS.items()]
    backend.normalizer = Sequence([*repairs, backend.normalizer])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=context_length, bos_token=START, eos_token=END, unk_token=END, pad_token=END,
    )


def write_tokenizer(folder: Path, context_length: int) -> None:
    """Write `tokenizer.json` for the `tokenizers` library: truncated to the context, padded to the longest text of a batch."""
    tokenizer = hf_tokenizer(context_length)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(context_length)
    backend.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    backend.save(str(folder / TOKENIZER_FILE))
