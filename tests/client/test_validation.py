"""Field errors from pydantic's errors: the pointer, the message and the value of each."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tinyclip.schemas import FieldError
from tinyclip.validation import MAX_ERRORS, field_errors, pointer_of, shown_value, summary


class Wheel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int = Field(ge=1)


class Car(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    wheels: list[Wheel] = []
    tags: str | list[str] | None = None


def errors_of(document: Any, at: str = "") -> list[FieldError]:
    with pytest.raises(ValidationError) as raised:
        Car.model_validate(document)
    return field_errors(raised.value.errors(), document, Car, at)


class TestFieldErrors:
    @pytest.mark.parametrize(
        ("document", "pointer", "value", "message"),
        [
            ({}, "/name", None, "this field is required"),
            ({"name": "a", "wheels": [{}]}, "/wheels/0/width", None, "this field is required"),
            ({"name": "a", "wheels": [{"width": 0}]}, "/wheels/0/width", 0, "Input should be greater than or equal to 1"),
            ({"name": "a", "wheel": 1}, "/wheel", 1, "unknown field; did you mean wheels?"),
            ({"name": "a", "wheels": [{"width": 1, "widht": 2}]}, "/wheels/0/widht", 2, "unknown field; did you mean width?"),
            ({"name": "a", "zzz": 1}, "/zzz", 1, "unknown field; known here: name, tags, wheels"),
            ([], "", [], "Input should be a valid dictionary or instance of Car"),
        ],
    )
    def test_one_place(self, document: Any, pointer: str, value: Any, message: str) -> None:
        assert errors_of(document) == [FieldError(pointer=pointer, value=value, message=message)]

    def test_the_branches_of_a_union_are_one_error_without_their_names(self) -> None:
        (error,) = errors_of({"name": "a", "tags": 7})

        assert (error.pointer, error.value) == ("/tags", 7)
        assert error.message == "Input should be a valid string; or input should be a valid list"

    def test_pointers_begin_where_the_document_is(self) -> None:
        assert [error.pointer for error in errors_of({}, at="/parameters")] == ["/parameters/name"]


class TestManyErrors:
    def test_fifty_places_are_listed_and_all_are_counted(self) -> None:
        with pytest.raises(ValidationError) as raised:
            Car.model_validate(document := {"name": "a", "wheels": [{}] * 1000})
        found = raised.value.errors()

        errors = field_errors(found, document, Car)

        assert len(errors) == MAX_ERRORS
        assert summary(errors, len(found)) == "/wheels/0/width: this field is required (and 999 more, of which 49 are listed)"

    def test_similar_names_are_searched_for_a_few_fields_with_short_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        searched: list[str] = []
        monkeypatch.setattr("difflib.get_close_matches", lambda name, *_, **__: searched.append(name) or [])

        errors = errors_of({"name": "a", "w" * 10_000: 1} | {f"wheels{i}": 1 for i in range(30)})

        assert len(errors) == 31
        assert searched == [f"wheels{i}" for i in range(9)]

    @pytest.mark.parametrize("value", [[0] * 1_000_000, {"a": [[0] * 1000]}, {str(i): i for i in range(1000)}])
    def test_a_long_value_is_not_repeated(self, value: Any) -> None:
        assert shown_value(value) is None


def test_a_pointer_escapes_its_parts() -> None:
    assert pointer_of(["a/b", 0, "~"]) == "/a~1b/0/~0"


def test_a_summary_counts_the_others() -> None:
    errors = errors_of({"wheels": [{}]})

    assert summary(errors) == "/name: this field is required (and 1 more)"
    assert summary(errors[:1]) == "/name: this field is required"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": [1, None]}, {"a": [1, None]}),
        ("a" * 500, "a" * 500),
        ("a" * 1501, "a" * 80 + "… (1,501 characters)"),
        ("\ud800", "\\ud800"),
        (b"12345", "5 bytes"),
        (["a" * 500], None),
        ({1, 2}, "{1, 2}"),
    ],
)
def test_the_shown_value(value: Any, shown: Any) -> None:
    assert shown_value(value) == shown
