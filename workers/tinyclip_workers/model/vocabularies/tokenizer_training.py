"""Training of a tokenizer on captions: a byte-level byte-pair encoding that keeps the merges of CLIP's that one language needs.

Its tokens are written as those of CLIP's: a byte is one character, and `</w>` ends a word. In the language that is kept, each
word of the captions has the tokens that CLIP's tokenizer divides it into. Those of the others are merged further.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, cycle, islice, pairwise

from open_clip.tokenizer import bytes_to_unicode
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import ByteLevel, Split, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from tinyclip_workers.model.tokenizers import STUDENT_OPTIONS, BoundedTokenizer, TokenizerSource
from tinyclip_workers.model.vocabularies.vocabulary import REPLACEMENTS

PAD, START, END = "<|padding|>", "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}\p{M}]+|[\p{N}]|[^\s\p{L}\p{M}\p{N}]+"
"""CLIP's words: runs of letters or of signs, and single digits. Here marks belong to letters, as in Devanagari or Thai."""
MIN_VOCABULARY = 3 + 2 * 256
"""Special tokens, and each byte inside and at the end of a word: such a vocabulary covers every text."""
NEEDED_SHARE, KEPT_SHARE = 0.8, 0.5
"""Of the vocabulary: at most for merges of CLIP's that the captions need, and up to which its most frequent ones are added."""
PRIVATE = 0xF0000
"""The first of the characters that stand for tokens while merges of them are counted."""
CACHED_WORDS = 200_000

Merge = tuple[str, str]


def train_tokenizer(captions: Mapping[str, Sequence[str]], vocab_size: int, kept: str | None = None) -> TokenizerSource:
    """Train a tokenizer on captions by language, on as many of each: those of a language with fewer are repeated.

    It has at most that many tokens: fewer if the captions have no more to merge. `kept`: the language whose words keep the tokens
    of CLIP's tokenizer; its most frequent merges fill up half of the vocabulary. The same input has one result. The id
    of the end of a text is the largest, as CLIP's text tower needs; padding is 0.
    """
    room, ranks = vocab_size - MIN_VOCABULARY, _clip_ranks() if kept is not None else {}
    words = _WordDivision()
    kept_words = {word for text in captions.get(kept, ()) for word in words.of(text)} if kept is not None else set[str]()
    base = _kept_merges(kept_words, ranks, room)
    others = {language: texts for language, texts in captions.items() if language != kept and texts}
    fixed = _adjacent(kept_words, base)
    merges = [*base, *_further_merges(_balanced(others), words, base, fixed, room - len(base))]
    return _source(merges)


def merge_word(symbols: list[str], ranks: Mapping[Merge, int]) -> list[Merge]:
    """Merge the symbols of a word in place as far as the ranks go, the lowest first; returns the merges that were used."""
    used = []
    while len(symbols) > 1:
        rank, place = min((ranks.get(pair, len(ranks)), place) for place, pair in enumerate(pairwise(symbols)))
        if rank == len(ranks):
            break
        pair = symbols[place], symbols[place + 1]
        used.append(pair)
        symbols[place : place + 2] = [pair[0] + pair[1]]
    return used


def symbols_of(word: str) -> list[str]:
    """Return the symbols that merges begin with: the bytes of a word, as characters, the last one with the end of the word."""
    return [*word[:-1], word[-1] + END_OF_WORD]


def _clip_ranks() -> dict[Merge, int]:
    ranks: dict[Merge, int] = BoundedTokenizer().bpe_ranks
    return ranks


def _kept_merges(words: Iterable[str], ranks: Mapping[Merge, int], room: int) -> list[Merge]:
    """Return the merges of CLIP's that words need, or the first ones of them, and then its most frequent ones, by rank."""
    used = {merge for word in words for merge in merge_word(symbols_of(word), ranks)}
    needed = sorted(used, key=ranks.__getitem__)[: round(NEEDED_SHARE * room)]
    frequent = sorted(ranks, key=ranks.__getitem__)[: max(0, round(KEPT_SHARE * room) - len(needed))] if needed else []
    return sorted({*needed, *frequent}, key=ranks.__getitem__)


def _adjacent(words: Iterable[str], base: Sequence[Merge]) -> set[Merge]:
    """Return the pairs of tokens in words that are to stay as they are."""
    ranks, found = {merge: rank for rank, merge in enumerate(base)}, set[Merge]()
    for word in words:
        symbols = symbols_of(word)
        merge_word(symbols, ranks)
        found.update(pairwise(symbols))
    return found


def _balanced(captions: Mapping[str, Sequence[str]]) -> Iterable[str]:
    most = max(map(len, captions.values()), default=0)
    return chain.from_iterable(islice(cycle(texts), most) for texts in captions.values())


def _further_merges(
    captions: Iterable[str], words: "_WordDivision", base: Sequence[Merge], fixed: set[Merge], most: int
) -> list[Merge]:
    """Return the most frequent merges of the tokens that captions have after the merges of `base`, but for `fixed` pairs.

    Each token stands as one character for the trainer, which begins with characters.
    """
    ranks = {merge: rank for rank, merge in enumerate(base)}
    tokens: dict[str, str] = {}

    @lru_cache(CACHED_WORDS)
    def written(word: str) -> str:
        symbols = symbols_of(word)
        merge_word(symbols, ranks)
        return "".join(tokens.setdefault(symbol, chr(PRIVATE + len(tokens))) for symbol in symbols)

    trained = Tokenizer(BPE())
    trained.pre_tokenizer = WhitespaceSplit()
    lines = [" ".join(map(written, words.of(caption))) for caption in captions]
    trained.train_from_iterator(lines, BpeTrainer(vocab_size=most + len(tokens), show_progress=False))
    text_of = {character: token for token, character in tokens.items()}
    found: list[Merge] = []
    for first, second in json.loads(trained.to_str())["model"]["merges"]:
        merge = text_of.get(first), text_of.get(second)
        if merge[0] is not None and merge[1] is not None and merge not in fixed:
            text_of[first + second] = merge[0] + merge[1]
            found.append((merge[0], merge[1]))
    return found[:most]


class _WordDivision:
    """Divides captions into words, written in characters for bytes."""

    def __init__(self) -> None:
        self._tokenizer, self._clean = _blank(BPE()), BoundedTokenizer().clean_fn

    def of(self, text: str) -> list[str]:
        normalizer, pre_tokenizer = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        assert normalizer is not None, "_blank sets it"
        assert pre_tokenizer is not None, "_blank sets it"
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(self._clean(text)))]


def _source(merges: Sequence[Merge]) -> TokenizerSource:
    characters = list(bytes_to_unicode().values())
    tokens = [PAD, *characters, *(character + END_OF_WORD for character in characters)]
    tokens = list(dict.fromkeys([*tokens, *(first + second for first, second in merges), START, END]))
    ids = {token: id for id, token in enumerate(tokens)}
    made = _blank(BPE(ids, list(merges), end_of_word_suffix=END_OF_WORD))
    made.add_special_tokens([PAD, START, END])
    ends = [(each, ids[each]) for each in (START, END)]
    made.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PAD, "bos_token": START, "eos_token": END}
    files = {"tokenizer.json": made.to_str().encode(), "tokenizer_config.json": json.dumps(config, indent=1).encode()}
    return TokenizerSource(files, STUDENT_OPTIONS)


def _blank(model: BPE) -> Tokenizer:
    """Return a tokenizer that divides texts into words as CLIP's."""
    made = Tokenizer(model)
    repairs = [Replace(Regex(pattern), text) for pattern, text in REPLACEMENTS.items()]  # as in exports of CLIP's own
    made.normalizer = Normalizers([*repairs, NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
    words = Split(Regex(WORDS), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
    return made
