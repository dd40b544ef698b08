"""CLIP's tokenizer in Hugging Face's files, made from open_clip's own tables."""

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
"""open_clip's names, and everybody else's."""
MENDED = {
    "[\u02bc\u2018-\u201b]": "'", "[\u201c-\u201f]": '"', "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi",
    "\ufb04": "ffl", "&(amp;)+": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&(#0*39|apos);": "'", "&nbsp;": " ",
}


def hf_tokenizer(context_length: int) -> Any:
    """A tokenizer for transformers with the same ids as open_clip's, cut to the model's context.

    Of what open_clip mends first with ftfy it knows curly quotes, ligatures and the common HTML entities. It is no
    `CLIPTokenizer` because that one puts its own rules in place of these when it is loaded.
    """
    ours = SimpleTokenizer()
    vocab = {SPECIAL.get(token, token): id for token, id in ours.encoder.items()}
    backend = CLIPTokenizer(vocab=vocab, merges=[*ours.bpe_ranks]).backend_tokenizer
    backend.normalizer = Sequence([*(Replace(Regex(pattern), text) for pattern, text in MENDED.items()), backend.normalizer])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=context_length, bos_token=START, eos_token=END, unk_token=END, pad_token=END,
    )


def write_tokenizer(folder: Path, context_length: int) -> None:
    """`tokenizer.json` alone, for the `tokenizers` library: cut to the context and padded to the longest of a batch."""
    tokenizer = hf_tokenizer(context_length)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(context_length)
    backend.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    backend.save(str(folder / TOKENIZER_FILE))
