"""Imports of models as versions of the registry."""

from typing import Annotated

from pydantic import Field, StringConstraints

from tinyclip.schemas._base import Request
from tinyclip.schemas.addresses import Address
from tinyclip.schemas.spec import Name

Alias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9._-]{0,62}$")]


class ImportOptions(Request):
    """Properties of an imported model that its file may not define."""

    name: Name | None = None
    """The model's name in the registry; None: that of the preset, else of the file."""
    alias: Alias | None = None
    """An alias to point at the new version."""
    preset: str | None = Field(default=None, max_length=200)
    """A published architecture, or one of open_clip's, which the file must have. A directory has its own configuration."""
    quick_gelu: bool | None = None
    """Whether the blocks have OpenAI's QuickGELU; None: as defined by the file, which must define it."""
    origin: str | None = Field(default=None, max_length=200)
    """The open_clip weights that the file has or derives from, as `ViT-B-32@openai`: defines QuickGELU and colours."""
    head_width: int | None = Field(default=None, ge=1, le=1024)
    """Width of an attention head, if the layout is derived from tensor shapes; None: 64."""
    text_head_width: int | None = Field(default=None, ge=1, le=1024)
    """The same for the text tower; None: `head_width`."""


class ImportUpload(ImportOptions):
    """The query of `POST /v1/models/import` whose body is the file, or a tar of the directory."""

    file: str = Field(default="model.pt", min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f]+$")
    """The file's name."""


class ModelImport(ImportOptions):
    """The body of `POST /v1/models/import` for a file or directory that the server reads."""

    source: Address = Field(min_length=1, max_length=2000)
    """An absolute path on the server, or a URI such as `s3://…`."""
