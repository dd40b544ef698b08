"""Fields that name an address: their types, and the addresses in a document.

A field that takes an address has one of these types, so that every check of addresses finds it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Field, StringConstraints

LOCAL_DIR = "local-dir:"
"""Prefix of a model that is a folder."""

Place = tuple[str, str]
"""A field's pointer, and the path, pattern or URI there."""


@dataclass(frozen=True)
class NamesAddress:
    """The mark of a type whose text is an address, or contains one."""

    address: Callable[[str], str | None]
    """Returns the address in the text; None if this text names none."""


def address_of_model(name: str) -> str | None:
    """Return the folder of a `local-dir:` model."""
    return name.removeprefix(LOCAL_DIR) if name.startswith(LOCAL_DIR) else None


def address_of_weights(pretrained: str) -> str | None:
    """Return the path or URI of weights; None for a tag of open_clip, which has neither slash nor dot."""
    return pretrained if "/" in pretrained or "." in pretrained else None


_Length = StringConstraints(max_length=10_000)
Address = Annotated[str, _Length, NamesAddress(lambda address: address)]
"""A path, pattern or URI, perhaps with a long list in braces."""
Shards = Address | Annotated[list[Address], Field(max_length=10_000, fail_fast=True)]
ModelName = Annotated[str, _Length, NamesAddress(address_of_model)]
Weights = Annotated[str, _Length, NamesAddress(address_of_weights)]


def addresses_in(document: BaseModel, pointer: str = "") -> Iterator[Place]:
    """Yield every address in a document, with its pointer."""
    for name, field in type(document).model_fields.items():
        yield from _addresses(Annotated[field.annotation, None, *field.metadata], getattr(document, name), f"{pointer}/{name}")


def _addresses(type_: Any, value: Any, pointer: str) -> Iterator[Place]:
    """Yield the addresses in a value of a field of this type."""
    if isinstance(value, BaseModel):
        yield from addresses_in(value, pointer)
        return
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        for mark in type_.__metadata__:
            if isinstance(mark, NamesAddress) and isinstance(value, str) and (address := mark.address(value)) is not None:
                yield pointer, address
        yield from _addresses(arguments[0], value, pointer)
    elif origin in (Union, UnionType):
        for branch in arguments:
            if not isinstance(value, BaseModel):
                yield from _addresses(branch, value, pointer)
    elif origin in (list, tuple) and isinstance(value, list | tuple) and not _is_plain_text(arguments[0]):
        for number, item in enumerate(value):
            yield from _addresses(arguments[0], item, f"{pointer}/{number}")
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from _addresses(arguments[1], item, f"{pointer}/{key}")


def _is_plain_text(type_: Any) -> bool:
    """Return whether a type is a text that names no address, so that long lists of it need not be visited."""
    marks = type_.__metadata__ if get_origin(type_) is Annotated else ()
    return (get_args(type_)[0] if marks else type_) is str and not any(isinstance(mark, NamesAddress) for mark in marks)
