"""A tokenizer that is trained on captions, and a model with its vocabulary."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from tinyclip_workers.model.tokenizer_training import END, MIN_VOCABULARY, START, train_tokenizer
from tinyclip_workers.model.tokenizers import Tokenizer, TokenizerError, TokenizerSource, make_tokenizer
from tinyclip_workers.model.vocabulary import check_end_of_text, vocabulary_of, with_vocabulary
from tinyclip_workers.model.weights import EMBEDDING
from torch import Tensor

from tests.workers.model.test_tokenizer_files import word_tokenizer
from tests.workers.models import tiny_layout, tiny_model

CAPTIONS = [
    "an emoji of a smiling cat", "a dog in a blue house", "ein Emoji: lachende Katze", "ein Hund in einem blauen Haus",
    "笑っている猫の絵文字", "青い家の犬", "笑脸猫的表情符号", "蓝色房子里的狗",
]  # fmt: skip
SCRIPT = "from tests.workers.model.test_tokenizer_training import *; print(digest())"


def trained(vocab_size: int = MIN_VOCABULARY + 80) -> TokenizerSource:
    return train_tokenizer(CAPTIONS * 3, vocab_size)


def tokenizer(source: TokenizerSource, context_length: int = 64) -> Tokenizer:
    layout = tiny_layout()
    text = layout.text.model_copy(update={"context_length": context_length})
    return make_tokenizer(layout.model_copy(update={"text": text}), source)


def digest() -> str:
    return hashlib.sha256(b"".join(content for _, content in sorted(trained().files.items()))).hexdigest()


class TestTraining:
    def test_the_same_captions_have_the_same_tokenizer_in_every_process(self) -> None:
        environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
        found = {subprocess.check_output([sys.executable, "-c", SCRIPT], env=environment, text=True) for _ in range(3)}

        assert len(found) == 1

    def test_words_of_the_captions_are_few_tokens_in_every_script(self) -> None:
        tokens = tokenizer(train_tokenizer(CAPTIONS * 3, 2000))(["a smiling cat", "笑脸猫", "blauen Haus", "Katze", "青い家の犬"])

        lengths = (tokens.argmax(dim=1) - 1).tolist()
        assert lengths[0] == 3
        assert lengths[1] <= 5  # of nine bytes
        assert lengths[2:4] == [2, 1]

    @pytest.mark.parametrize("text", ["Ünïcode", "नमस्ते", "🙂", "a1b2", "x" * 40, "\x00\u200d", "it's"])
    def test_every_text_has_tokens(self, text: str) -> None:
        source = trained()
        vocabulary = vocabulary_of(source)

        tokens = tokenizer(source, 400)(text)[0]

        kept = [vocabulary[int(id)] for id in tokens if id]
        assert (kept[0], kept[-1]) == (START, END)
        assert len(kept) > 2
        assert tokens.max() == len(vocabulary) - 1

    def test_the_vocabulary_is_no_larger_than_asked(self) -> None:
        assert len(vocabulary_of(trained(MIN_VOCABULARY + 20))) == MIN_VOCABULARY + 20
        assert MIN_VOCABULARY + 20 < len(vocabulary_of(trained(10_000))) < 10_000

    def test_a_long_text_still_ends(self) -> None:
        tokens = tokenizer(trained(), 8)("猫 " * 30)

        assert tokens.shape == (1, 8)
        assert tokens[0].argmax() == 7

    def test_an_end_of_text_in_another_place_is_refused(self) -> None:
        check_end_of_text(tokenizer(trained()), len(vocabulary_of(trained())))

        with pytest.raises(TokenizerError, match="must be the token of the largest id, 999"):
            check_end_of_text(tokenizer(trained()), 1000)


class TestVocabulary:
    def table(self, source: TokenizerSource, parent: Tokenizer, state: dict[str, Tensor]) -> dict[str, Tensor]:
        tokens = vocabulary_of(source)
        found, layout = with_vocabulary(state, tiny_layout(), parent, tokens, seed=0)
        assert layout.text.vocab_size == len(tokens)
        return dict(zip(tokens, found[EMBEDDING], strict=True))

    def test_tokens_of_both_are_copied_and_others_are_the_mean_of_their_pieces(self) -> None:
        state = dict(tiny_model().state_dict())
        clip = SimpleTokenizer()

        rows = self.table(train_tokenizer(CAPTIONS * 3, 2000), make_tokenizer(tiny_layout()), state)

        old = {token: state[EMBEDDING][id] for token, id in clip.encoder.items()}
        assert torch.equal(rows["cat</w>"], old["cat</w>"])
        assert torch.equal(rows["smiling</w>"], old["smiling</w>"])
        pieces = clip.bpe("lachende").split(" ")
        assert len(pieces) > 1
        assert torch.allclose(rows["lachende</w>"], torch.stack([old[piece] for piece in pieces]).mean(dim=0))
        assert torch.equal(rows[START], old["<start_of_text>"])
        assert torch.equal(rows[END], old["<end_of_text>"])

    def test_what_the_parent_lacks_is_random_and_repeatable(self) -> None:
        state = dict(tiny_model().state_dict())
        table = torch.zeros_like(state[EMBEDDING])
        known = SimpleTokenizer().encoder["cat</w>"]
        table[known] = state[EMBEDDING][known]
        table[known - 1] = 2 * state[EMBEDDING][known]

        one, two = (self.table(trained(2000), make_tokenizer(tiny_layout()), {**state, EMBEDDING: table}) for _ in range(2))

        assert torch.equal(one["cat</w>"], table[known])
        assert one["dog</w>"].abs().sum() > 0
        assert all(torch.equal(one[token], two[token]) for token in one)

    def test_a_parent_of_another_tokenizer_is_asked_for_the_text(self) -> None:
        layout, parent = tiny_layout(), word_tokenizer()
        state = dict(tiny_model().state_dict())

        rows = self.table(train_tokenizer(["a red house", "a blue bird"] * 3, 1000), make_tokenizer(layout, parent), state)

        assert torch.equal(rows["house</w>"], state[EMBEDDING][5])
        assert torch.equal(rows[END], state[EMBEDDING][8])
