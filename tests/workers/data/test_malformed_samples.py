"""A malformed sample is skipped and counted wherever shards are read, and the good samples around it are used."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tinyclip.schemas.spec import DataSpec, TrainData
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.samples import (
    MAX_TEXT_BYTES,
    Sample,
    UnusableSample,
    captions_of,
    printable,
    sample_errors,
    text_field,
)
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream

from tests.workers import hostile_files as hostile
from tests.workers.hostile_files import member, pax
from tests.workers.shards import png

IMAGE = png((200, 10, 10), size=8)
KEY = "json.meta.caption"


def letters(text: str) -> torch.Tensor:
    """A tokenizer that fails on what the real one fails on; its end of the text is the largest token, too."""
    return torch.tensor([*text.encode()[:16].ljust(16), 255])


def good(number: int) -> bytes:
    document = {"meta": {"caption": f"good {number}"}, "label": number % 2}
    return member(f"good{number}.png", IMAGE) + member(f"good{number}.json", json.dumps(document).encode())


def pair(document: bytes, image: bytes = IMAGE) -> bytes:
    return member("bad.png", image) + member("bad.json", document)


MALFORMED: dict[str, bytes] = {
    "a null on the way to the caption": pair(b'{"meta": null}'),
    "a text on the way to the caption": pair(b'{"meta": "caption"}'),
    "a list on the way to the caption": pair(b'{"meta": ["caption"]}'),
    "a null caption": pair(b'{"meta": {"caption": null}}'),
    "null captions": pair(b'{"meta": {"caption": [null, null]}}'),
    "a number": pair(b'{"meta": {"caption": 7}}'),
    "an object": pair(b'{"meta": {"caption": {"a": 1}}}'),
    "an empty list": pair(b'{"meta": {"caption": []}}'),
    "only spaces": pair(b'{"meta": {"caption": "  \\n "}}'),
    "nested JSON": pair(b'{"meta": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "nested objects": pair(b'{"meta": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_001),
    "a number of 5,000 digits": pair(b'{"meta": {"caption": ' + b"9" * 5000 + b"}}"),
    "a lone surrogate": pair(rb'{"meta": {"caption": "\ud800 cat"}}'),
    "a list instead of an object": pair(b"[1]"),
    "half a document": pair(b'{"meta": {"caption'),
    "no UTF-8": pair(b'{"meta": {"caption": "\xff\xfe"}}'),
    "a large document": pair(b'{"meta": {"caption": "' + b"x" * MAX_TEXT_BYTES + b'"}}'),
    "an empty document": pair(b""),
    "two documents": pair(b'{"meta": {"caption": "one"}}') + member("bad.json", b'{"meta": {"caption": "two"}}'),
    "an empty image": pair(b'{"meta": {"caption": "cat"}}', b""),
    "half an image": pair(b'{"meta": {"caption": "cat"}}', IMAGE[:50]),
    "a name that is not UTF-8": member("bad\udcff.png", b"x"),
    "a damaged header": b"x" + hostile.header("bad.json", 3)[1:] + hostile.padded(b"bad"),
    "a sparse image": hostile.sparse("bad.png", packed=0, size=1 << 30),
    "a negative size": pax({"size": "-1"}) + member("bad.json", b"x"),
    "a name that leads upwards": member("../bad.json", b"{}"),
}  # fmt: skip


def write(folder: Path, *parts: bytes) -> str:
    """Write a shard that begins and ends with good samples."""
    path = folder / "a.tar"
    path.write_bytes(b"".join([good(0), good(1), *parts, good(2), good(3), hostile.END]))
    return str(path)


def train_data(shards: str) -> TrainData:
    return TrainData(shards=shards, image_key=["png"], caption_key=KEY, distinct_key="json.meta.id")


def one_epoch(shards: str, batch_size: int = 1) -> tuple[set[str], Skipped]:
    """Return the captions of one epoch of training, and what was skipped."""
    data = DataSpec(train=train_data(shards), shuffle=0)
    source = PairStream(data, index_shards(data.train), batch_size=batch_size, image_size=8, tokenize=letters, seed=1)
    batches = list(itertools.takewhile(lambda batch: batch.position.epoch == 0, BatchLoader(source, 0)))
    return {bytes(row.tolist()[:-1]).decode().strip() for batch in batches for row in batch.tokens_BT}, batches[-1].skipped


GOOD = {f"good {number}" for number in range(4)}


@pytest.mark.parametrize("malformed", list(MALFORMED.values()), ids=list(MALFORMED))
def test_training_skips_and_counts_a_malformed_sample(tmp_path: Path, malformed: bytes) -> None:
    shards = write(tmp_path, malformed)

    captions, skipped = one_epoch(shards)

    assert captions == GOOD
    assert (skipped.samples, skipped.shards) == (len(list(read_shard(shards))) - 4, 0)
    assert skipped.examples[0].startswith("sample ")
    json.dumps(skipped.examples, ensure_ascii=False).encode()


def test_batches_without_a_usable_sample_are_left_out(tmp_path: Path) -> None:
    captions, skipped = one_epoch(write(tmp_path, *[member(f"bad{n}.json", b"{}") for n in range(6)]), batch_size=2)

    assert captions == GOOD
    assert skipped.samples == 6


def test_the_end_of_memory_is_no_defect_of_a_sample() -> None:
    skipped = Skipped()

    with pytest.raises(MemoryError), skipped.unusable({"__key__": "a"}):
        raise MemoryError

    assert skipped.samples == 0


@pytest.mark.parametrize(
    "error", [KeyError("a"), RecursionError(), TypeError("x"), AttributeError(), ZeroDivisionError(), OSError(5, "a")], ids=repr
)
def test_any_other_exception_skips_the_sample_with_a_reason(error: Exception) -> None:
    skipped = Skipped()

    with skipped.unusable({"__key__": "a"}):
        raise error

    assert skipped.samples == 1
    assert len(skipped.examples[0]) > len("sample a: ")


def sample(**document: Any) -> Sample:
    return {"__key__": "a", "__url__": "", "__defects__": {}, "json": json.dumps(document).encode(), "txt": b"one\n\n two "}


def test_captions_are_texts_only() -> None:
    assert captions_of(sample(c=["cat", None, 7, " dog "]), "json.c") == ["cat", "dog"]
    assert captions_of(sample(), "txt") == ["one\n\n two"]
    assert captions_of(sample(), "txt", by_line=True) == ["one", "two"]
    assert captions_of(sample(c="x" * 10_000), "json.c") == ["x" * 4096]
    with pytest.raises(UnusableSample, match=r"its caption under json\.c is null, not text"):
        captions_of(sample(c=None), "json.c")


def test_labels_are_texts_numbers_or_booleans() -> None:
    assert [text_field(sample(c=value), "json.c") for value in (" a ", 3, True, 0.5)] == ["a", "3", "True", "0.5"]
    for value in (None, [1], {"a": 1}):
        with pytest.raises(UnusableSample, match="not a text or a number"):
            text_field(sample(c=value), "json.c")


NAMES = st.sampled_from(["meta", "caption", "label", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes with some replaced, deleted or repeated."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(0, 3))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        data[at : at + length] = draw(st.sampled_from([b"", bytes(data[at : at + 2 * length]), draw(st.binary(max_size=8))]))
    return bytes(data)


@st.composite
def any_sample(draw: st.DrawFn) -> bytes:
    """One to three files of a sample, valid or not."""
    document = draw(JSON.map(lambda value: json.dumps(value).encode()) | st.just(b'{"meta": {"caption": "cat"}, "label": 1}'))
    files = {"json": draw(damaged(document)), "png": draw(damaged(IMAGE)), "cls": draw(st.binary(max_size=4))}
    chosen = draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=4))
    name = draw(st.sampled_from(["bad", "bad/x", "é", "a\udcfe", "../x", "/x"]))
    return b"".join(member(f"{name}.{extension}", files[extension]) for extension in chosen)


def damaged_blocks(valid: bytes) -> st.SearchStrategy[bytes]:
    """Members with single bytes of their first header changed."""
    changes = st.dictionaries(st.integers(0, 511), st.integers(0, 255), max_size=3)
    return changes.map(lambda new: bytes(new.get(at, byte) if at < 512 else byte for at, byte in enumerate(valid)))


HOSTILE = st.lists(any_sample() | any_sample().flatmap(damaged_blocks), max_size=4)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(HOSTILE)
def test_training_uses_the_good_samples_around_arbitrary_ones(tmp_path: Path, parts: list[bytes]) -> None:
    shards = write(tmp_path, *parts)

    captions, skipped = one_epoch(shards)

    assert captions >= GOOD - ({"good 2", "good 3"} if skipped.shards else set())
    json.dumps(skipped.examples, ensure_ascii=False).encode()


def test_messages_have_no_control_characters() -> None:
    assert printable("a\0b\x1b[31m\x9bc\udcff\n\té") == "a\\x00b\\x1b[31m\\x9bc\\udcff\n\té"


def test_sample_errors_keep_their_own_kind() -> None:
    with pytest.raises(UnusableSample, match=r"^mine$"), sample_errors():
        raise UnusableSample("mine")
