"""What a user says about a model made elsewhere, so that it can become a version of the registry."""

from typing import Annotated

from pydantic import Field, StringConstraints

from tinyclip.schemas._base import Request
from tinyclip.schemas.spec import Name

Alias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9._-]{0,62}$")]


class ImportOptions(Request):
    """What the file itself may not say."""

    name: Name | None = None
    """The model's name in the registry; null: the preset's, else the file's."""
    alias: Alias | None = None
    """An alias to point at the new version."""
    preset: str | None = Field(default=None, max_length=200)
    """A published architecture, or any of open_clip's, which the file is held to. A directory brings its own configuration."""
    quick_gelu: bool | None = None
    """Whether the blocks have OpenAI's QuickGELU; null: as the source says, and asked for where it does not."""
    origin: str | None = Field(default=None, max_length=200)
    """The open_clip weights that the file holds or goes back to, as `ViT-B-32@openai`: says QuickGELU and colours."""
    head_width: int | None = Field(default=None, ge=1, le=1024)
    """Width of an attention head where it is read off the tensors' shapes; null: 64."""
    text_head_width: int | None = Field(default=None, ge=1, le=1024)
    """The same for the text tower; null: as `head_width`."""


class ImportUpload(ImportOptions):
    """The query of `POST /v1/models/import` whose body is the file, or a tar of the directory, itself."""

    file: str = Field(default="model.pt", min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f]+$")
    """What the file was called."""


class ModelImport(ImportOptions):
    """The body of `POST /v1/models/import` for a file or directory that the server can read itself."""

    source: str = Field(min_length=1, max_length=2000)
    """An absolute path on the server's machine, or a URI of a store that it reaches, as `s3://…`."""
