"""JSON is parsed like any JSON, and refused before it costs much."""

import asyncio
import json
import threading
from typing import Any

import pydantic_core
import pytest
from tinyclip import bounded_json
from tinyclip.bounded_json import INLINE_BYTES, Limits, MalformedJson, TooComplex, UnstorableText, off_the_loop, parse


@pytest.mark.parametrize("document", [{}, [], None, 1.5, "é😀", {"a": [1, {"b": None}]}, [[]] * 60, 10**30, "[" * 200])
def test_documents_are_parsed(document: Any) -> None:
    assert parse(json.dumps(document).encode()) == document
    assert parse(b"\xef\xbb\xbf" + json.dumps(document, ensure_ascii=False).encode()) == document


@pytest.mark.parametrize(
    "items",
    [
        [{"id": "a", "vector": [0.5, -1e-7, 3]}, {}, {"": None}],
        [{"text": 'a"},{"b'}, {"text": "\\"}, {"text": "}, {"}],
        [{"a": [{}, {"b": {}}]}, {"a": {"b": [[{}, {}]]}}],
        [{"a": [{}] * 200}],
        [{}, 1],
        [{}, [{}]],
        [{"é😀": "\u2028"}],
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n\t", " : "), (f",{' ' * 101}", ":")])
def test_large_lists_of_objects_are_parsed_like_small_ones(items: list[Any], separators: tuple[str, str]) -> None:
    document = {"items": [{"text": "a" * (1 << 20)}, *items]}

    assert parse(json.dumps(document, separators=separators).encode()) == document
    assert parse(json.dumps(document, separators=separators, ensure_ascii=False).encode()) == document


def test_a_large_list_of_objects_does_not_hold_the_interpreter() -> None:
    body = json.dumps({"items": [{"vector": [0.12345] * 1000}] * 900}).encode()
    calls: list[int] = []

    def from_json(part: bytes, **options: Any) -> Any:
        calls.append(len(part))
        return pydantic_core.from_json(part, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_json, "from_json", from_json)
        parse(body, Limits(values=1_000_000))

    assert len(calls) == 900
    assert max(calls) < 20_000


@pytest.mark.parametrize(
    "end",
    [
        "", "]", "}", "]]}", "]}}", "}]}", ",]}", ",{]}", ',{"a":1,}]}', ',{"a"},{}]}', "]},", "]}\0", ",\v{}]}", "\f]}",
        '],"a":1}', '],"a":{}}', '],"a":[{}]}', ',{}],"a":[{},{}]}',
    ],
)
def test_large_lists_of_objects_end_like_small_ones(end: str) -> None:
    small, large = (f'{{"items":[{{"a":"{"a" * size}"}},{{}}{end}'.encode() for size in (1, 1 << 20))
    try:
        parse(small)
    except MalformedJson:
        with pytest.raises(MalformedJson):
            parse(large)
    else:
        assert parse(large).keys() == parse(small).keys()


@pytest.mark.parametrize("body", [b"", b"{", b"{}{}", b'{"a":}', b"\xff", b'"\xff"', b"nul"])
def test_other_bodies_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse(body)


@pytest.mark.parametrize("body", [b'"\\ud800"', b'{"\\udc00":1}', b'"\xed\xa0\x80"', b'["a\\u0000"]', b'{"\\u0000":1}'])
def test_text_that_cannot_be_stored_is_refused(body: bytes) -> None:
    with pytest.raises(UnstorableText):
        parse(body)


def test_an_escaped_backslash_before_u0000_is_not_a_nul() -> None:
    assert parse(b'"\\\\u0000"') == "\\u0000"
    assert parse(b'"\\u0000"', allow_nul=True) == "\0"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
        (b"[" * 100_000, "nested deeper than 64"),
        (b"[" + b"0," * 300_001 + b"0]", "about 300,001 values"),
        (b"{" + b'"a":0,' * 100_001 + b'"a":0}', "about 100,002 keys"),
        (b"[" + b"{}," * 100_001 + b"0]", "about 100,002 lists and objects"),
        (json.dumps({str(number): 0 for number in range(1001)}).encode(), "1,001 keys"),
        (json.dumps([{str(number): 0 for number in range(1000)}] * 21).encode(), "more than 20,000"),
        (json.dumps({"k" * 1001: 0}).encode(), "1,001 characters"),
        (b"[" + b"9" * 4000 + b"," + b"0" * (1 << 20) + b"]", "more than 128 digits"),
    ],
    ids=["deep", "very deep", "values", "duplicate keys", "containers", "keys of an object", "keys", "a key", "digits"],
)
def test_what_would_cost_much_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(TooComplex, match=message):
        parse(body)


def test_limits_can_be_raised() -> None:
    assert len(parse(b"[" + b"0," * 400_000 + b"0]", Limits(values=400_000))) == 400_001


def test_large_work_is_done_in_a_thread_and_small_work_is_not() -> None:
    async def where(size: int) -> str:
        return await off_the_loop(size, lambda: threading.current_thread().name)

    assert asyncio.run(where(INLINE_BYTES)) == threading.current_thread().name
    assert asyncio.run(where(INLINE_BYTES + 1)).startswith("json")
    assert bounded_json._threads._max_workers == 1
