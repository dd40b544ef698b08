"""Updates of single items: checked, written to the artifacts store, then acknowledged.

The file is written before its row, so an acknowledged update can always be applied. Workers decode and embed images; here only
the encoding of an image is checked.
"""

import base64
import binascii
import contextlib
import re
import string
import uuid
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import IndexUpdate
from tinyclip.artifacts.paths import index_update
from tinyclip.bounded_json import off_the_loop
from tinyclip.schemas import FieldError, IndexItem
from tinyclip.validation import shown_value

from tinyclip_server.database.tables import IndexRow
from tinyclip_server.http.services import Services
from tinyclip_server.indexes import repository, service
from tinyclip_server.problems import InvalidInput

_DATA_URI = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)
_HEAD_CHARACTERS = 300
"""Characters of an image that are searched for a scheme or the start of a data URI."""
_ACCEPTED_IMAGES = "send the bytes of a PNG, JPEG, WebP or GIF file, base64-encoded or as a data URI"


async def accept_update(services: Services, session: AsyncSession, project: str, name: str, update: IndexUpdate) -> IndexRow:
    """Accept an update, which is durable once the session commits. Raises NotFound, Conflict, InvalidInput."""
    async with services.db.read() as before:
        row = await service.get(before, project, name)
        service.expect_changeable(row)
        embed_dim = await repository.embed_dim(before, row)
    size = sum(map(_size, update.items))
    await off_the_loop(size, lambda: _check(update.items, embed_dim))
    file = f"{uuid.uuid4().hex}.json"
    path = index_update(name, file)
    document = await off_the_loop(size, lambda: _written(update))
    await services.store.write_bytes(path, document)
    try:
        row = await service.get(session, project, name, lock=True)
        await service.accept_update(session, row, file)
    except BaseException:
        with contextlib.suppress(OSError):
            await services.store.remove(path)  # it was not acknowledged
        raise
    return row


def _written(update: IndexUpdate) -> bytes:
    """Return an update as JSON, written an item at a time: one call for all vectors would hold the interpreter."""
    items = ",".join(item.model_dump_json(exclude_none=True) for item in update.items)
    rest = update.model_dump_json(exclude={"items"})
    return f'{{"items":[{items}],{rest[1:]}'.encode()


def _size(item: IndexItem) -> int:
    """Return about the bytes of an item in JSON."""
    return len(item.image or "") + len(item.text or "") + 10 * len(item.vector or ()) + 100 * len(item.metadata)


def _check(items: Sequence[IndexItem], embed_dim: int) -> None:
    errors = []
    for place, item in enumerate(items):
        if item.vector is not None and len(item.vector) != embed_dim:
            message = f"has {len(item.vector)} numbers, but the model's embeddings have {embed_dim}"
            errors.append(FieldError(pointer=f"/items/{place}/vector", value=len(item.vector), message=message))
        elif item.image is not None and (problem := _image_problem(item.image)):
            message = f"{problem}; {_ACCEPTED_IMAGES}"
            errors.append(FieldError(pointer=f"/items/{place}/image", value=shown_value(item.image), message=message))
    if errors:
        raise InvalidInput.of(errors)


def _image_problem(image: str) -> str | None:
    head = image[:_HEAD_CHARACTERS]
    if re.match(r"\s*\w+://", head):
        return "is a URL, which indexes do not fetch"
    uri = _DATA_URI.match(head)
    try:
        encoded = (image[uri.end() :] if uri else image).encode("ascii").translate(None, string.whitespace.encode())
        return None if base64.b64decode(encoded, validate=True) else "is empty"
    except (binascii.Error, ValueError):
        return "is not base64"
