"""The header of a safetensors file: names, types and shapes of its tensors. It comes from anybody, so everything is checked.

Messages name tensors of the file, cut to a short length, and nothing else of its content.
"""

import math
import struct
from typing import IO, Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tinyclip_workers.model.documents import parse_object

MAX_HEADER_BYTES = 2 << 20
"""Limit of the header: that of a large CLIP has 200 kB, and a parsed one takes up to 25 times its size."""
MAX_SHOWN_NAME = 120
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip

_Size = Annotated[int, Field(ge=0, lt=1 << 63)]


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names it."""


class TensorEntry(BaseModel):
    """The entry of one tensor."""

    model_config = ConfigDict(strict=True)

    dtype: str
    shape: list[_Size] = Field(max_length=8)
    data_offsets: list[_Size] = Field(min_length=2, max_length=2)
    """First byte and end, counted from the end of the header."""

    def problem(self) -> str | None:
        """Return why the entry is inconsistent; None if it is not."""
        item_bytes, (begin, end) = DTYPE_BYTES.get(self.dtype), self.data_offsets
        if item_bytes is None:
            return f"a type that is not one of {', '.join(DTYPE_BYTES)}"
        return None if end - begin == math.prod(self.shape) * item_bytes else "offsets that do not fit its shape"


_entries = TypeAdapter(dict[str, TensorEntry])
_metadata = TypeAdapter(dict[str, str])


def read_entries(file: IO[bytes], uri: str) -> tuple[dict[str, TensorEntry], dict[str, str], int]:
    """Read the header from the start of a file. Return the tensors' entries, the metadata and the header's bytes.

    Raises WeightsError naming the file.
    """
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise WeightsError(f"{uri} is not a safetensors file; convert it to safetensors")
    document = parse_object(
        file.read(length), lambda what: WeightsError(f"{uri} has a safetensors header that is {what}; convert it to safetensors")
    )
    metadata = document.pop("__metadata__", None)
    try:
        entries = _entries.validate_python(document)
        free_text = _metadata.validate_python({} if metadata is None else metadata)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = " ".join(shown_name(str(part)) for part in first["loc"])
        raise WeightsError(f"{uri} has an invalid safetensors header at {place or 'its metadata'}; save it again") from error
    for name, entry in entries.items():
        if problem := entry.problem():
            raise WeightsError(f"{uri} has an invalid safetensors header: {shown_name(name)} has {problem}; save it again")
    return entries, free_text, 8 + length


def shown_name(name: str) -> str:
    """Return a tensor's name as messages have it."""
    readable = name.encode("utf-8", "backslashreplace").decode()
    return readable if len(readable) <= MAX_SHOWN_NAME else f"{readable[:MAX_SHOWN_NAME]}…"
