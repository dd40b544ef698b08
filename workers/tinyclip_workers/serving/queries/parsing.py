"""From an HTTP request to a checked query: JSON and multipart come out the same. Shapes of others are in `shapes_*.py`."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from starlette.requests import Request as HttpRequest
from tinyclip.filters import FilterError, parse_filter
from tinyclip.schemas import JSON, FieldError, LabelSetPut, Request, SearchRequest, ZeroShotRequest

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.bodies import (
    MAX_FILES,
    Parts,
    form_document,
    form_images,
    is_form,
    read_document,
    read_form,
    validated,
)
from tinyclip_workers.serving.queries.problems import field_error, invalid
from tinyclip_workers.types import ImageInput

MAX_IMAGES = MAX_FILES
MAX_CHARACTERS = 10_000
"""Of one text; what a model reads of it ends much earlier."""
MAX_LABELS = 10_000


@dataclass(frozen=True)
class Images:
    """Images of a request and where each one was, as JSON pointers."""

    images: Sequence[ImageInput]
    pointers: Sequence[str]


@dataclass(frozen=True)
class ZeroShotQuery:
    images: Images
    labels: list[str]
    templates: list[str]
    top_k: int
    skip_bad_images: bool
    label_set: str | None = None
    """Instead of labels and templates."""
    model: str | None = None
    """To ask, of several; null: the deployment's own, or its canary."""


class _ZeroShotForm(Request):
    """The fields of a multipart form beside its files."""

    model: str | None = None
    labels: list[str] | None = Field(default=None, min_length=1, max_length=MAX_LABELS)
    label_set: str | None = None
    templates: list[str] = Field(default=["{}"], min_length=1, max_length=200)
    top_k: int = Field(default=5, ge=1)
    on_error: Literal["fail", "skip"] = "fail"


def zero_shot_query(document: JSON, options: ServingOptions) -> ZeroShotQuery:
    """Raises Refusal naming every field that is wrong."""
    asked = validated(ZeroShotRequest, document)
    if (asked.image is None) == (asked.images is None):
        raise invalid(FieldError(pointer="/image", message="give exactly one of image and images"))
    if asked.images is not None:
        images = Images(asked.images, [f"/images/{i}" for i in range(len(asked.images))])
    else:
        images = Images([asked.image or ""], ["/image"])
    _expect_one_way_to_name_labels(asked)
    query = ZeroShotQuery(
        images, asked.labels or [], asked.templates, asked.top_k, asked.on_error == "skip", asked.label_set, asked.model
    )
    return _checked(query, options)


def zero_shot_form(parts: Parts, options: ServingOptions) -> ZeroShotQuery:
    """Raises Refusal naming every field that is wrong."""
    images = form_images(parts)
    if not 1 <= len(images) <= MAX_IMAGES:
        raise invalid(field_error("/image", len(images), f"give 1 to {MAX_IMAGES} files under the name image"))
    fields = validated(_ZeroShotForm, form_document(parts, several=("labels", "templates")))
    _expect_one_way_to_name_labels(fields)
    query = ZeroShotQuery(
        Images(images, image_pointers(len(images))), fields.labels or [], fields.templates, fields.top_k,
        fields.on_error == "skip", fields.label_set, fields.model,
    )  # fmt: skip
    return _checked(query, options)


def image_pointers(count: int) -> list[str]:
    """Of the files of a form."""
    return ["/image"] if count == 1 else [f"/image/{i}" for i in range(count)]


def _expect_one_way_to_name_labels(asked: ZeroShotRequest | _ZeroShotForm) -> None:
    if asked.labels is None and asked.label_set is None:
        raise invalid(FieldError(pointer="/labels", message="is missing; give labels, or label_set with the name of a set"))
    if asked.label_set is not None:
        for name in {"labels", "templates"} & asked.model_fields_set:
            raise invalid(FieldError(pointer=f"/{name}", message=f"label set {asked.label_set} brings its own; leave it out"))


def _checked(query: ZeroShotQuery, options: ServingOptions) -> ZeroShotQuery:
    """The query again. Raises Refusal for labels and templates that cannot be used."""
    if query.label_set is None:
        check_labels(query.labels, query.templates, options)
    return query


def check_labels(
    labels: list[str],
    templates: list[str] | str,
    options: ServingOptions,
    *,
    labels_at: str = "/labels",
    templates_at: str = "/templates",
) -> None:
    """Raises Refusal for what cannot be used, or is more than a request may ask for."""
    listed = _listed(templates_at, templates)
    check_texts_at(listed)
    if errors := [field_error(where, text, "has no {} where the label goes") for where, text in listed if "{}" not in text]:
        raise invalid(*errors)
    check_texts(labels_at, labels)
    if len(labels) * len(listed) > options.max_texts:
        message = f"{len(labels)} labels times {len(listed)} templates are more than {options.max_texts:,} texts"
        raise invalid(field_error(templates_at, len(listed), f"{message}; send fewer of either"))


async def read_label_set(request: HttpRequest, options: ServingOptions) -> LabelSetPut:
    """Raises Refusal."""
    asked = validated(LabelSetPut, await read_document(request, options))
    check_labels(asked.labels, asked.templates, options)
    return asked


async def read_search(request: HttpRequest, options: ServingOptions) -> SearchRequest:
    """Raises Refusal."""
    document = _search_form(await read_form(request, options)) if is_form(request) else await read_document(request, options)
    query = validated(SearchRequest, document)
    if (query.text is None) == (query.image is None):
        raise invalid(FieldError(pointer="/text", value=None, message="give exactly one of text and image"))
    if query.text is not None:
        check_texts("/text", query.text)
    try:
        parse_filter(query.filter or {})
    except FilterError as error:
        raise invalid(field_error(f"/filter{error.pointer}", error.value, str(error))) from error
    return query


def _search_form(parts: Parts) -> JSON:
    """A file becomes base64: there is one, and all that follows is as for JSON."""
    document = form_document(parts, several=())
    images = form_images(parts)
    if len(images) > 1:
        raise invalid(field_error("/image", len(images), "search for one image at a time"))
    for image in images:
        document["image"] = image if isinstance(image, str) else base64.b64encode(image).decode()
    if isinstance(document.get("filter"), str):
        try:
            document["filter"] = json.loads(document["filter"])
        except ValueError as error:
            raise invalid(field_error("/filter", document["filter"], f"is not JSON: {error}")) from error
    return document


def check_texts(pointer: str, texts: str | Sequence[str]) -> None:
    """Raises Refusal for texts that are blank, far too long or not Unicode."""
    check_texts_at(_listed(pointer, texts))


def _listed(pointer: str, texts: str | Sequence[str]) -> list[tuple[str, str]]:
    """Each text with its pointer."""
    return [(pointer, texts)] if isinstance(texts, str) else [(f"{pointer}/{i}", text) for i, text in enumerate(texts)]


def check_texts_at(listed: Sequence[tuple[str, str]]) -> None:
    """(pointer, text). Raises Refusal."""
    errors = [field_error(where, text, problem) for where, text in listed if (problem := _text_problem(text))]
    if errors:
        raise invalid(*errors)


def _text_problem(text: str) -> str | None:
    if not text.strip():
        return "is blank; give a text"
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text):,} characters, more than {MAX_CHARACTERS:,}; a model reads the first few dozen words only"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has a lone surrogate, which is no Unicode text"
    return None
