"""The tokenizer gives open_clip's tokens, at a bounded cost."""

import random
import string
import time

import pytest
from open_clip.tokenizer import SimpleTokenizer
from tinyclip_workers.model import tokenizers
from tinyclip_workers.model.tokenizers import BoundedTokenizer, make_tokenizer

from tests.workers.models import tiny_layout

TEXTS = [
    "a photo of a cat", "", "Émile's naïve café, 42!", "<start_of_text> inside <end_of_text>", "一只猫在桌子上 " * 40, "😀" * 200,
    "word " * 500, "1234567890 " * 50, "a-b-c-d/e.f" * 60, "&amp; &lt;b&gt;", "ab" * 400,
]


def test_tokens_are_those_of_open_clip() -> None:
    layout = tiny_layout()

    ours, theirs = make_tokenizer(layout)(TEXTS), SimpleTokenizer(context_length=layout.context_length)(TEXTS)

    assert ours.equal(theirs)


def test_a_long_word_takes_no_longer_than_a_text() -> None:
    letters = random.Random(0).choices(string.ascii_lowercase, k=10_000)
    tokenize, began = make_tokenizer(tiny_layout()), time.process_time()

    tokenize("".join(letters))

    assert time.process_time() - began < 0.5


def test_it_does_not_remember_every_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers, "MAX_REMEMBERED_WORDS", 10)
    tokenizer = make_tokenizer(tiny_layout())
    before = tokenizer(TEXTS)

    for number in range(100):
        tokenizer(f"word{number}x{number}y")

    assert len(tokenizer.cache) < 50  # type: ignore[attr-defined]
    assert tokenizer(TEXTS).equal(before)


def test_tokenizers_share_their_vocabulary_and_nothing_else() -> None:
    first, second = make_tokenizer(tiny_layout()), BoundedTokenizer(context_length=7)

    first("extraordinarily")

    assert second.encoder is first.encoder  # type: ignore[attr-defined]
    assert len(first.cache) > len(second.cache) == 2  # type: ignore[attr-defined]
    assert second("a cat on a mat on a hat").shape == (1, 7)
