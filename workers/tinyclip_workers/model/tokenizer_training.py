"""Training of a tokenizer on captions: a byte-level byte-pair encoding as CLIP's, whose vocabulary is that of the captions.

Its tokens are written as those of CLIP's: a byte is one character, and `</w>` ends a word. So tokens that both have are equal
texts, and the others are composed of CLIP's (`vocabulary`).
"""

import json
from collections.abc import Iterable

from open_clip.tokenizer import bytes_to_unicode
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Replace, Sequence
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from tinyclip_workers.model.tokenizers import STUDENT_OPTIONS, TokenizerSource

PAD, START, END = "<|padding|>", "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}\p{M}]+|[\p{N}]|[^\s\p{L}\p{M}\p{N}]+"
"""CLIP's words: runs of letters or of signs, and single digits. Here marks belong to letters, as in Devanagari or Thai."""
MIN_VOCABULARY = 3 + 2 * 256
"""Special tokens, and each byte inside and at the end of a word: such a vocabulary covers every text."""


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> TokenizerSource:
    """Train a tokenizer of at most that many tokens: fewer if the captions have no more to merge. The same input has one result.

    The id of the end of a text is the largest, as CLIP's text tower needs; padding is 0.
    """
    characters = list(bytes_to_unicode().values())
    trained = _blank(BPE(end_of_word_suffix=END_OF_WORD))
    # Of merges that are equally frequent the trainer takes that of the lowest ids. It numbers the ends of words as it meets them,
    # which is in another order in each process, unless they are given here.
    trainer = BpeTrainer(
        vocab_size=vocab_size - MIN_VOCABULARY + 2 * 256, initial_alphabet=ByteLevel.alphabet(), end_of_word_suffix=END_OF_WORD,
        special_tokens=[character + END_OF_WORD for character in characters], show_progress=False,
    )  # fmt: skip
    trained.train_from_iterator(captions, trainer)
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]][: vocab_size - MIN_VOCABULARY]
    tokens = [PAD, *characters, *(character + END_OF_WORD for character in characters)]
    tokens += [_merged(*merge) for merge in merges] + [START, END]
    ids = {token: id for id, token in enumerate(tokens)}
    assert len(ids) == len(tokens), "two merges with one result"
    made = _blank(BPE(ids, merges, end_of_word_suffix=END_OF_WORD))
    made.add_special_tokens([PAD, START, END])
    ends = [(each, ids[each]) for each in (START, END)]
    made.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PAD, "bos_token": START, "eos_token": END}
    files = {"tokenizer.json": made.to_str().encode(), "tokenizer_config.json": json.dumps(config, indent=1).encode()}
    return TokenizerSource(files, STUDENT_OPTIONS)


def _blank(model: BPE) -> Tokenizer:
    """Return a tokenizer that divides texts into words as CLIP's."""
    made = Tokenizer(model)
    made.normalizer = Sequence([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
    words = Split(Regex(WORDS), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
    return made


def _merged(first: str, second: str) -> str:
    return first + second
