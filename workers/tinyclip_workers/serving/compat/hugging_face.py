"""Hugging Face's shape of zero-shot image classification, as its pipelines and `InferenceClient` have it."""

from typing import TYPE_CHECKING

import orjson
from starlette.requests import Request
from starlette.responses import Response
from tinyclip.schemas import JSON, LabelScore
from tinyclip.schemas import Request as Schema

from tinyclip_workers.serving.http.route import Described
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.bodies import read_document, validated
from tinyclip_workers.serving.queries.parsing import MAX_LABELS, Images, ZeroShotQuery, check_labels
from tinyclip_workers.serving.queries.problems import field_error, invalid

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student

TEMPLATE = "This is a photo of {}."


class HuggingFaceParameters(Schema):
    candidate_labels: list[str] | str
    hypothesis_template: str = TEMPLATE


class HuggingFaceRequest(Schema):
    inputs: str
    """An image."""
    parameters: HuggingFaceParameters


def is_hugging_face(document: JSON) -> bool:
    return "inputs" in document


async def zero_shot(student: "Student", request: Request) -> Response:
    return await hugging_face_answer(student, await read_document(request, student.options))


async def hugging_face_answer(student: "Student", document: JSON) -> Response:
    """One bare list of all labels with their scores, best first."""
    query = hugging_face_query(document, student.options)
    model = await student.answering(None, canary=True)
    [scores] = (await model.service.zero_shot(query)).results
    return Response(orjson.dumps([score.model_dump() for score in scores or []]), media_type="application/json")


def hugging_face_query(document: JSON, options: ServingOptions) -> ZeroShotQuery:
    """Raises Refusal."""
    asked = validated(HuggingFaceRequest, document)
    given = asked.parameters.candidate_labels
    labels = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    if not 1 <= len(labels) <= MAX_LABELS:
        raise invalid(field_error("/parameters/candidate_labels", len(labels), f"give 1 to {MAX_LABELS:,} labels"))
    template = asked.parameters.hypothesis_template
    where = {"labels_at": "/parameters/candidate_labels", "templates_at": "/parameters/hypothesis_template"}
    check_labels(labels, template, options, **where)
    return ZeroShotQuery(Images([asked.inputs], ["/inputs"]), labels, [template], len(labels), skip_bad_images=False)


ROUTES = [
    Described("POST", "/", zero_shot, "Zero-shot classification in Hugging Face's shape", HuggingFaceRequest,
              answer=list[LabelScore]),
]  # fmt: skip
