"""A reduced vocabulary reads every text of its tokens as CLIP's tokenizer does, and any other text as something."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save as to_safetensors
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.tokenizers import (
    ReducedTokenizer,
    TokenizerError,
    TokenizerSource,
    count_unknown_tokens,
    make_tokenizer,
)
from tinyclip_workers.model.vocabularies.vocabulary import BYTE_TOKENS, NotReducible, Vocabulary, reduced_model, tokens_of
from tinyclip_workers.versions.writer import model_files
from torch import Tensor

from tests.workers.models import tiny_layout, tiny_model

CONTEXT = 16
CAPTIONS = [
    "a photo of a Dog", "grinning face with smiling eyes", "people’s flags: 12 of them!", "naïve café &amp; 中文", "x" * 90,
]
CLIP = SimpleTokenizer(context_length=CONTEXT)
VOCABULARY = Vocabulary.of_tokens(tokens_of(CAPTIONS, CONTEXT))


def reduced() -> ReducedTokenizer:
    tokenizer = make_tokenizer(tiny_layout(), VOCABULARY.tokenizer())
    assert isinstance(tokenizer, ReducedTokenizer)
    return tokenizer


REDUCED = reduced()

PIECES = st.one_of(
    st.sampled_from([word for caption in CAPTIONS for word in caption.split()]),
    st.sampled_from([token.removesuffix("</w>") for token in REDUCED.encoder]),
    st.text(max_size=6),
)
TEXTS = st.lists(PIECES, max_size=8).flatmap(lambda pieces: st.sampled_from([" ", ""]).map(lambda between: between.join(pieces)))


def clip_ids(tokens_BT: Tensor) -> list[list[int]]:
    """Return CLIP's ids of the reduced tokens of each text, up to the end of text."""
    ids = torch.tensor(VOCABULARY.ids)[tokens_BT].tolist()
    return [row[: row.index(CLIP.eot_token_id) + 1] for row in ids]


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_text_of_kept_tokens_has_the_tokens_of_open_clip(text: str) -> None:
    tokens_T = CLIP(text)[0].tolist()
    whole = tokens_T[: tokens_T.index(CLIP.eot_token_id) + 1]

    ours = REDUCED(text)

    assert ours.shape == (1, CONTEXT)
    if REDUCED.unknown_tokens(text) == 0:
        assert clip_ids(ours) == [whole]
    else:
        assert not set(CLIP.encode(text)) <= set(VOCABULARY.ids)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_text_has_tokens_that_spell_it(text: str) -> None:
    ids = clip_ids(REDUCED(text))[0]

    whole = CLIP(text)[0].tolist()
    if len(ids) < CONTEXT and whole.count(CLIP.eot_token_id) == 1:
        assert CLIP.decode(ids[1:-1]) == CLIP.decode(whole[1 : whole.index(CLIP.eot_token_id)])


def test_kept_tokens_bring_their_parts_bytes_and_the_ends_of_a_text() -> None:
    ids = VOCABULARY.ids
    merges = [(first, second) for first, second in CLIP.bpe_ranks if CLIP.encoder[first + second] in ids]

    assert list(ids) == sorted(set(ids))
    assert set(range(BYTE_TOKENS)) <= set(ids)
    assert ids[-2:] == (49406, 49407)
    assert {CLIP.encoder[part] for pair in merges for part in pair} <= set(ids)
    assert set(ids) - set(range(BYTE_TOKENS)) - {49406, 49407} == {CLIP.encoder[first + second] for first, second in merges}
    assert len(Vocabulary.of_tokens([])) == BYTE_TOKENS + 2


def test_words_beside_the_vocabulary_are_counted_and_read_as_smaller_tokens() -> None:
    assert count_unknown_tokens(REDUCED, ["a photo of a dog", "a dog, a bicycle and a bicycle"]) == 3  # and, bicycle twice
    assert clip_ids(REDUCED("a photo of a dog")) == [[49406, 320, 1125, 539, 320, 1929, 49407]]
    assert len(clip_ids(REDUCED("bicycle"))[0]) > 3
    assert count_unknown_tokens(make_tokenizer(tiny_layout()), ["a bicycle"]) is None


def write_folder(folder: Path, model: LoadedModel) -> None:
    weights = to_safetensors({name: tensor.contiguous() for name, tensor in model.model.state_dict().items()})
    for name, content in model_files(model.layout, weights, OPENAI_MEAN, OPENAI_STD, None, model.tokenizer_source).items():
        (folder / name).write_bytes(content)


def whole_model() -> LoadedModel:
    layout = tiny_layout()
    return LoadedModel(tiny_model(), layout, make_tokenizer(layout), OPENAI_MEAN, OPENAI_STD, "tiny@1", "")


def test_a_reduced_model_computes_the_same_for_texts_of_its_tokens(tmp_path: Path) -> None:
    whole = whole_model()
    write_folder(tmp_path, reduced_model(whole, VOCABULARY))

    found = load_folder(str(tmp_path))

    assert found.layout.vocab_size == len(VOCABULARY)
    assert isinstance(found.tokenizer, ReducedTokenizer)
    with torch.no_grad():
        ours, theirs = (model.model.encode_text(model.tokenizer(CAPTIONS)) for model in (found, whole))
    assert ours.equal(theirs)


def test_open_clip_reads_the_folder_with_the_same_tokens(tmp_path: Path) -> None:
    write_folder(tmp_path, reduced_model(whole_model(), VOCABULARY))

    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path}")

    texts = [*CAPTIONS, "a bicycle", "", "9" * 40]
    texts += ["It's DOGS \u201cquoted\u201d &lt;b&gt; \ufb01ne", "Ünknown  ｗｉｄｅ\n\tletters"]
    assert REDUCED(texts).equal(theirs(texts))
    assert open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")[0].token_embedding.num_embeddings == len(VOCABULARY)


def test_only_the_whole_vocabulary_of_clip_is_reduced() -> None:
    once = reduced_model(whole_model(), VOCABULARY)

    with pytest.raises(NotReducible, match="has a tokenizer of its own"):
        reduced_model(once, VOCABULARY)


@pytest.mark.parametrize("ids", ["no list", {}, {"a": "1"}, {"a": 1}, {"!": 0, "nothing of CLIP": 1}])
def test_a_damaged_vocabulary_is_refused(ids: object) -> None:
    source = VOCABULARY.tokenizer()
    document = json.loads(source.files["tokenizer.json"])
    document["model"]["vocab"] = ids

    with pytest.raises(TokenizerError, match=r"its tokenizer\.json"):
        make_tokenizer(tiny_layout(), TokenizerSource({**source.files, "tokenizer.json": json.dumps(document).encode()}))
