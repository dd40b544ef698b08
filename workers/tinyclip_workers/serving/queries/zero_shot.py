"""Zero-shot queries and label sets, read and checked; JSON and multipart requests give the same query."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from pydantic import Field
from starlette.requests import Request as HttpRequest
from tinyclip.schemas import JSON, FieldError, LabelSetPut, Request, ZeroShotRequest
from tinyclip.schemas._base import Line, LongText

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid_input
from tinyclip_workers.serving.queries.bodies import Parts, form_document, form_images, read_query, validated
from tinyclip_workers.serving.queries.inputs import (
    MAX_CHARACTERS,
    MAX_IMAGES,
    Images,
    check_texts,
    form_image_pointers,
    with_pointers,
)

MAX_LABELS = 10_000
MAX_SET_BYTES = 1 << 20
"""Size of a label set in the store."""


@dataclass(frozen=True)
class ZeroShotQuery:
    images: Images
    labels: list[str]
    templates: list[str]
    top_k: int
    skip_bad_images: bool
    label_set: str | None = None
    """The label set that replaces labels and templates."""
    model: str | None = None
    """The model to use; None: the deployment's own, or its canary."""


class _ZeroShotForm(Request):
    """The fields of a multipart form other than its files."""

    model: Line | None = None
    labels: list[LongText] | None = Field(default=None, min_length=1, max_length=MAX_LABELS, fail_fast=True)
    label_set: Line | None = None
    templates: list[LongText] = Field(default=["{}"], min_length=1, max_length=200)
    top_k: int = Field(default=5, ge=1)
    on_error: Literal["fail", "skip"] = "fail"


def zero_shot_query(document: JSON, options: ServingOptions) -> ZeroShotQuery:
    """Raises ProblemError naming every invalid field."""
    fields = validated(ZeroShotRequest, document)
    if (fields.image is None) == (fields.images is None):
        raise invalid_input(FieldError(pointer="/image", message="give exactly one of image and images"))
    if fields.images is not None:
        images = Images(fields.images, [f"/images/{i}" for i in range(len(fields.images))])
    else:
        images = Images([fields.image or ""], ["/image"])
    return _checked_query(images, fields, options)


def zero_shot_form_query(parts: Parts, options: ServingOptions) -> ZeroShotQuery:
    """Raises ProblemError naming every invalid field."""
    images = form_images(parts)
    if not 1 <= len(images) <= MAX_IMAGES:
        raise invalid_input(field_error("/image", len(images), f"give 1 to {MAX_IMAGES} files under the name image"))
    fields = validated(_ZeroShotForm, form_document(parts, repeated=("labels", "templates")))
    return _checked_query(Images(images, form_image_pointers(len(images))), fields, options)


def _checked_query(images: Images, fields: ZeroShotRequest | _ZeroShotForm, options: ServingOptions) -> ZeroShotQuery:
    """Raises ProblemError unless the labels are named in exactly one way and are valid."""
    if fields.labels is None and fields.label_set is None:
        message = "this field is required: give labels, or label_set with the name of a set"
        raise invalid_input(FieldError(pointer="/labels", message=message))
    if fields.label_set is not None:
        for name in {"labels", "templates"} & fields.model_fields_set:
            message = f"label set {fields.label_set} brings its own; leave it out"
            raise invalid_input(FieldError(pointer=f"/{name}", message=message))
    query = ZeroShotQuery(
        images, fields.labels or [], fields.templates, fields.top_k, fields.on_error == "skip", fields.label_set, fields.model
    )
    scores = len(images.images) * min(fields.top_k, len(query.labels) or MAX_LABELS)
    if scores > options.max_scores:
        message = f"{len(images.images)} images times {fields.top_k} scores are more than {options.max_scores:,}"
        raise invalid_input(field_error("/top_k", fields.top_k, f"{message}; give a smaller number, or send fewer images"))
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
    """Raises ProblemError for labels or templates that are invalid, or too many texts."""
    listed = with_pointers(templates_at, templates)
    check_texts(listed)
    without_slot = [(pointer, text) for pointer, text in listed if "{}" not in text]
    if without_slot:
        raise invalid_input(*(field_error(pointer, text, "has no {} where the label goes") for pointer, text in without_slot))
    check_texts(with_pointers(labels_at, labels))
    longest = max(map(len, labels), default=0)
    too_long = [(pointer, text) for pointer, text in listed if len(text) + text.count("{}") * longest > MAX_CHARACTERS]
    if too_long:
        message = f"makes texts of more than {MAX_CHARACTERS:,} characters with the longest label; shorten it, or use {{}} once"
        raise invalid_input(*(field_error(pointer, text, message) for pointer, text in too_long))
    if len(labels) * len(listed) > options.max_texts:
        message = f"{len(labels)} labels times {len(listed)} templates are more than {options.max_texts:,} texts"
        raise invalid_input(field_error(templates_at, len(listed), f"{message}; send fewer of either"))


async def read_label_set(request: HttpRequest, options: ServingOptions) -> LabelSetPut:
    """Raises ProblemError."""
    return await read_query(request, options, partial(_label_set, options=options))


def _label_set(document: JSON, options: ServingOptions) -> LabelSetPut:
    label_set = validated(LabelSetPut, document)
    check_labels(label_set.labels, label_set.templates, options)
    size = len(label_set.model_dump_json().encode())
    if size > MAX_SET_BYTES:
        message = f"makes a set of {size:,} bytes, more than {MAX_SET_BYTES:,}; shorten the labels, or register several sets"
        raise invalid_input(field_error("/labels", label_set.labels, message))
    return label_set
