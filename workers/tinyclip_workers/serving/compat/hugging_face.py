"""Hugging Face's shape of zero-shot image classification, as its pipelines and `InferenceClient` have it."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from tinyclip.schemas import JSON
from tinyclip.schemas import Request as Schema
from tinyclip.schemas._base import EncodedImage, LongText

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid_input
from tinyclip_workers.serving.queries.bodies import read_query, validated
from tinyclip_workers.serving.queries.inputs import Images
from tinyclip_workers.serving.queries.zero_shot import MAX_LABELS, ZeroShotQuery, check_labels

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica

TEMPLATE = "This is a photo of {}."


class HuggingFaceParameters(Schema):
    candidate_labels: Annotated[list[LongText], Field(max_length=MAX_LABELS, fail_fast=True)] | LongText
    hypothesis_template: LongText = TEMPLATE


class HuggingFaceRequest(Schema):
    inputs: EncodedImage
    """An image."""
    parameters: HuggingFaceParameters


def is_hugging_face(document: JSON) -> bool:
    return "inputs" in document


async def zero_shot(replica: "Replica", request: Request) -> Response:
    read = partial(hugging_face_query, options=replica.options)
    return await answer_hugging_face(replica, await read_query(request, replica.options, read))


async def answer_hugging_face(replica: "Replica", query: ZeroShotQuery) -> Response:
    """Answer with one bare list of all labels and their scores, best first."""
    model = await replica.model_for(None, canary=True)
    [scores] = (await model.inference.zero_shot(query)).results
    return Response(orjson.dumps([score.model_dump() for score in scores or []]), media_type="application/json")


def hugging_face_query(document: JSON, options: ServingOptions) -> ZeroShotQuery:
    """Raises ProblemError."""
    fields = validated(HuggingFaceRequest, document)
    candidates = fields.parameters.candidate_labels
    labels = [part.strip() for part in candidates.split(",")] if isinstance(candidates, str) else candidates
    if not 1 <= len(labels) <= MAX_LABELS:
        raise invalid_input(field_error("/parameters/candidate_labels", len(labels), f"give 1 to {MAX_LABELS:,} labels"))
    template = fields.parameters.hypothesis_template
    pointers = {"labels_at": "/parameters/candidate_labels", "templates_at": "/parameters/hypothesis_template"}
    check_labels(labels, template, options, **pointers)
    return ZeroShotQuery(Images([fields.inputs], ["/inputs"]), labels, [template], len(labels), skip_bad_images=False)
