"""Every field that names an address has a type that says so, and its addresses are found."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from tinyclip.schemas import EvaluationPost, IndexPut, IndexSource, JobSpec, ModelImport
from tinyclip.schemas._base import Request
from tinyclip.schemas.addresses import NamesAddress, addresses_in
from tinyclip.schemas.spec import RetrievalTask

TASK = RetrievalTask(name="z", kind="retrieval", shards="/z")

NO_ADDRESSES = {
    "alias", "id", "index", "label_set", "labels", "model", "models", "name", "origin", "preset", "user",  # names of the service
    "dataset", "reinforcement",  # likewise
    "caption_key", "distinct_key", "image_key", "label_key", "metadata_keys", "where", "filter",  # fields of samples and items
    "classes", "templates", "text", "input", "messages", "metadata",  # texts; of the first two, a file is marked
    "image", "images",  # encoded, or a URL that replicas fetch under the rules of `serve_image_urls`
    "item",  # the id of an item of an index
    "file",  # the name of an upload, without a slash
    "set",  # values of a spec, which is checked as a whole
    "language", "languages",  # tags of a pattern
    "coefficients",  # by the name of a term
    "task", "metric", "vary",  # names of the spec's tasks and fields
}


def request_models(model: type[BaseModel] = Request) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield each
        yield from request_models(each)


def is_text(type_: Any) -> bool:
    """Return whether a value of this type can be a string that a user chooses, without the mark of an address."""
    origin = get_origin(type_)
    if origin is Annotated:
        return not any(isinstance(mark, NamesAddress) for mark in type_.__metadata__) and is_text(get_args(type_)[0])
    if origin in (Union, UnionType, list, tuple, dict):
        return any(is_text(argument) for argument in get_args(type_))
    return type_ in (str, Any)


def test_every_text_of_a_request_is_an_address_or_known_to_be_none() -> None:
    texts = {
        name
        for model in request_models() if model.__module__.startswith("tinyclip.")
        for name, field in model.model_fields.items() if is_text(Annotated[field.annotation, None, *field.metadata])
    }

    assert texts == NO_ADDRESSES, "give a new field a type of tinyclip.schemas.addresses, or add it here"


def test_the_addresses_of_a_spec_are_found_with_their_pointers() -> None:
    tasks = [
        {"name": "z", "kind": "zero_shot", "shards": "/z", "classes": "/classes", "templates": ["a {}"]},
        {"name": "p", "kind": "linear_probe", "shards": ["/p"], "train_shards": "/t"},
    ]
    spec = JobSpec.model_validate({
        "name": "x", "data": {"train": {"shards": ["/a", "/b"]}}, "evaluation": {"tasks": tasks},
        "teachers": [{"model": "local-dir:/m"}, {"model": "a", "pretrained": "/w"}, {"model": "a", "pretrained": "openai"}],
        "objective": {"affinity": 1, "clusters": "/c"},
        "stages": [
            {"name": "s", "inherit_from": "local-dir:/p",
             "student": {"preset": "p"}, "train": {"steps": 1}, "objective": {"affinity": 1, "clusters": "/s"}},
        ],
    })

    assert dict(addresses_in(spec)) == {
        "/teachers/0/model": "/m", "/teachers/1/pretrained": "/w", "/data/train/shards/0": "/a", "/data/train/shards/1": "/b",
        "/evaluation/tasks/0/shards": "/z", "/evaluation/tasks/0/classes": "/classes", "/evaluation/tasks/1/shards/0": "/p",
        "/evaluation/tasks/1/train_shards": "/t", "/objective/clusters": "/c", "/stages/0/objective/clusters": "/s",
        "/stages/0/inherit_from": "/p",
    }


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (ModelImport(source="/m.pt"), {"/source": "/m.pt"}),
        (IndexPut(model="m@1", source=IndexSource(shards=["/a"])), {"/source/shards/0": "/a"}),
        (IndexPut(model="m@1"), {}),
        (EvaluationPost(model="local-dir:/m", against="m@1", tasks=[TASK]), {"/model": "/m", "/tasks/0/shards": "/z"}),
    ],
    ids=["import", "index", "empty index", "evaluation"],
)
def test_the_addresses_of_other_requests_are_found(body: BaseModel, found: dict[str, str]) -> None:
    assert dict(addresses_in(body)) == found
