"""A tokenizer that is trained on captions, and a model with its vocabulary."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from tinyclip_workers.model.files.weights import EMBEDDING
from tinyclip_workers.model.tokenizers import Tokenizer, TokenizerError, TokenizerSource, make_tokenizer
from tinyclip_workers.model.vocabularies.alignment import Weighted, align
from tinyclip_workers.model.vocabularies.tokenizer_training import END, MIN_VOCABULARY, START, train_tokenizer
from tinyclip_workers.model.vocabularies.vocabulary_change import (
    check_end_of_text,
    find_origins,
    origins_from_json,
    origins_to_json,
    vocabulary_of,
    with_vocabulary,
)
from torch import Tensor

from tests.workers.model.test_tokenizer_files import word_tokenizer
from tests.workers.models import tiny_layout, tiny_model

CAPTIONS = {
    "en": ["an emoji of a smiling cat", "a dog in a blue house"],
    "de": ["ein Emoji: lachende Katze", "ein Hund in einem blauen Haus", "blauen Katzen", "lachende Hunde"],
    "ja": ["笑っている猫の絵文字", "青い家の犬"],
    "zh": ["笑脸猫的表情符号", "蓝色房子里的狗"],
}
SCRIPT = """
import hashlib, json, sys
from tinyclip_workers.model.vocabularies.tokenizer_training import train_tokenizer
files = train_tokenizer(json.load(sys.stdin), 2000, "en").files
print(hashlib.sha256(b"".join(content for _, content in sorted(files.items()))).hexdigest())
"""


def trained(vocab_size: int = 2000, kept: str | None = None) -> TokenizerSource:
    return train_tokenizer(CAPTIONS, vocab_size, kept)


def tokenizer(source: TokenizerSource, context_length: int = 64) -> Tokenizer:
    layout = tiny_layout()
    text = layout.text.model_copy(update={"context_length": context_length})
    return make_tokenizer(layout.model_copy(update={"text": text}), source)


class TestTraining:
    def test_the_same_captions_have_the_same_tokenizer_in_every_process(self) -> None:
        own = b"".join(content for _, content in sorted(trained(kept="en").files.items()))
        seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # of another order of sets than here
        environment = os.environ | {"PYTHONHASHSEED": seed}

        found = subprocess.check_output([sys.executable, "-c", SCRIPT], env=environment, input=json.dumps(CAPTIONS), text=True)

        assert found.strip() == hashlib.sha256(own).hexdigest()

    def test_words_of_the_captions_are_few_tokens_in_every_script(self) -> None:
        tokens = tokenizer(trained())(["smiling cat", "笑脸猫", "lachende blauen"])

        lengths = (tokens.argmax(dim=1) - 1).tolist()
        assert lengths[0] == 2
        assert lengths[1] <= 5  # of nine bytes
        assert lengths[2] == 2

    def test_the_kept_language_has_clips_tokens(self) -> None:
        source = trained(kept="en")
        vocabulary, clip = vocabulary_of(source), SimpleTokenizer(context_length=64)
        texts = [*CAPTIONS["en"], "a smiling dog in an emoji house"]

        ours, theirs = tokenizer(source)(texts), clip(texts)

        assert ours.argmax(dim=1).equal(theirs.argmax(dim=1))
        for own, other in zip(ours, theirs, strict=True):
            end = int(own.argmax())
            assert [vocabulary[id] for id in own[1:end]] == [clip.decoder[int(id)] for id in other[1:end]]

    def test_other_languages_do_not_change_it(self) -> None:
        """CLIP divides this word; it is frequent in another language, too, and would be merged there."""
        assert len(SimpleTokenizer().bpe("lachende").split(" ")) > 1
        source = train_tokenizer({"en": ["lachende"], "de": ["lachende Hunde"] * 5}, 2000, "en")

        ours = tokenizer(source)("lachende")[0]

        assert int(ours.argmax()) - 1 == len(SimpleTokenizer().encode("lachende"))

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
        assert MIN_VOCABULARY < len(vocabulary_of(trained(MIN_VOCABULARY + 20))) <= MIN_VOCABULARY + 20
        assert MIN_VOCABULARY + 20 < len(vocabulary_of(trained(10_000))) < 10_000
        assert len(vocabulary_of(trained(10_000, "en"))) <= 10_000

    def test_a_long_text_still_ends(self) -> None:
        tokens = tokenizer(trained(), 8)("猫 " * 30)

        assert tokens.shape == (1, 8)
        assert tokens[0].argmax() == 7

    def test_an_end_of_text_in_another_place_is_refused(self) -> None:
        check_end_of_text(tokenizer(trained()), len(vocabulary_of(trained())))

        with pytest.raises(TokenizerError, match="must be the token of the largest id, 999"):
            check_end_of_text(tokenizer(trained()), 1000)


class TestVocabulary:
    def rows(
        self, source: TokenizerSource, parent: Tokenizer, state: dict[str, Tensor], aligned: dict[int, Weighted] | None = None
    ) -> dict[str, Tensor]:
        tokens = vocabulary_of(source)
        origins = origins_from_json(origins_to_json(find_origins(tokens, parent, aligned or {})))
        found, layout = with_vocabulary(state, tiny_layout(), origins, seed=0)
        assert layout.text.vocab_size == len(tokens)
        return dict(zip(tokens, found[EMBEDDING], strict=True))

    def test_tokens_of_both_are_copied_and_others_are_the_mean_of_their_pieces(self) -> None:
        state, clip = dict(tiny_model().state_dict()), SimpleTokenizer()

        rows = self.rows(trained(kept="en"), make_tokenizer(tiny_layout()), state)

        old = {token: state[EMBEDDING][id] for token, id in clip.encoder.items()}
        assert torch.equal(rows["cat</w>"], old["cat</w>"])
        pieces = clip.bpe("lachende").split(" ")
        assert len(pieces) > 1
        assert torch.allclose(rows["lachende</w>"], torch.stack([old[piece] for piece in pieces]).mean(dim=0))
        assert torch.equal(rows[START], old["<start_of_text>"])
        assert torch.equal(rows[END], old["<end_of_text>"])

    def test_translations_count_more_than_pieces_and_less_than_the_same_token(self) -> None:
        state, clip = dict(tiny_model().state_dict()), SimpleTokenizer()
        source = trained(kept="en")
        id = {token: id for id, token in enumerate(vocabulary_of(source))}
        cat, dog = clip.encoder["cat</w>"], clip.encoder["dog</w>"]
        aligned: dict[int, Weighted] = {id["lachende</w>"]: [(cat, 0.75), (dog, 0.25)], id["cat</w>"]: [(dog, 1.0)]}

        rows = self.rows(source, make_tokenizer(tiny_layout()), state, aligned)

        assert torch.allclose(rows["lachende</w>"], 0.75 * state[EMBEDDING][cat] + 0.25 * state[EMBEDDING][dog])
        assert torch.equal(rows["cat</w>"], state[EMBEDDING][cat])

    def test_what_a_compact_parent_lacks_is_taken_from_the_next_origin_or_random_and_repeatable(self) -> None:
        state, clip = dict(tiny_model().state_dict()), SimpleTokenizer()
        source = trained(kept="en")
        id = {token: id for id, token in enumerate(vocabulary_of(source))}
        cat, dog = clip.encoder["cat</w>"], clip.encoder["dog</w>"]
        table = torch.zeros_like(state[EMBEDDING])
        table[cat] = state[EMBEDDING][cat]
        parent = make_tokenizer(tiny_layout())
        aligned: dict[int, Weighted] = {id["dog</w>"]: [(cat, 0.5), (dog, 0.5)]}

        one, two = (self.rows(source, parent, {**state, EMBEDDING: table}, aligned) for _ in range(2))

        assert torch.equal(one["cat</w>"], table[cat])
        assert torch.allclose(one["dog</w>"], table[cat])
        assert one["house</w>"].abs().sum() > 0
        assert all(torch.equal(one[token], two[token]) for token in one)

    def test_a_parent_of_another_tokenizer_is_asked_for_the_text(self) -> None:
        state = dict(tiny_model().state_dict())
        source = train_tokenizer({"": ["a red house", "a blue bird"] * 3}, 1000)

        rows = self.rows(source, make_tokenizer(tiny_layout(), word_tokenizer()), state)

        assert torch.equal(rows["house</w>"], state[EMBEDDING][5])
        assert torch.equal(rows[END], state[EMBEDDING][8])


class TestAlignment:
    def test_tokens_stand_for_those_that_they_share_all_captions_with(self) -> None:
        """10: one, 20: two, 30: three, in another order; 99 is in all of the translations, and 5 in all captions."""
        one, two, three, article = 1, 2, 3, 5
        pairs = [
            ([99, 10, 20], [article, two, one]), ([99, 20, 30], [article, three, two]), ([30, 99, 10], [one, article, three]),
        ]  # fmt: skip

        found = align(pairs * 3)

        assert [found[token][0][0] for token in (10, 20, 30, 99)] == [one, two, three, article]
        assert all(found[token][0][1] > 0.8 for token in (10, 20, 30))
        assert all(sum(weight for _, weight in weights) == pytest.approx(1) for weights in found.values())

    def test_nothing_is_aligned_without_translations(self) -> None:
        assert align([]) == {}
        assert align([([1], []), ([], [2])]) == {}


def test_a_teacher_whose_texts_have_no_end_is_refused_with_the_remedy() -> None:
    def endless(texts: str | list[str]) -> Tensor:
        return torch.tensor([[7, 8, 9]]) if texts else torch.zeros(1, 3, dtype=torch.long)

    with pytest.raises(TokenizerError, match=r"no tokens for the text 'a b' with an end, .* name another teacher"):
        find_origins([START, END, "a</w>"], endless, {})
