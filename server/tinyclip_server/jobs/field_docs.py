"""The texts below the fields of models, as descriptions in their JSON Schema.

They are read from the source once, when a schema is asked for: pydantic's own `use_attribute_docstrings` reads it at each import,
which every command of the client would pay for.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel


def described(schema: dict[str, Any], document: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a document in which each field has its text, unless it has a description already."""
    models = {model.__name__: model for model in _models(document, set())}
    parts = {document.__name__: schema, **schema.get("$defs", {})}
    for name, part in parts.items():
        texts = field_docs(models[name]) if name in models else {}
        for field, text in texts.items():
            if field in part.get("properties", {}):
                part["properties"][field].setdefault("description", text)
    return schema


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the texts below the fields of a model and of the models that it extends."""
    texts: dict[str, str] = {}
    for base in reversed([one for one in model.__mro__ if issubclass(one, BaseModel) and one is not BaseModel]):
        texts |= _texts_of(base.__module__).get(base.__name__, {})
    return texts


@cache
def _texts_of(module: str) -> dict[str, dict[str, str]]:
    """Return the texts of a module's classes, by class and field; none without its source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}
    return {node.name: dict(_texts(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _texts(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)):
            continue
        if isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            yield field.target.id, inspect.cleandoc(text.value.value)


def _models(annotation: Any, seen: set[int]) -> Iterator[type[BaseModel]]:
    """Yield the models that a type refers to, itself included."""
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation, seen)
            for extra in field.metadata:
                yield from _models(extra, seen)
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument, seen)
