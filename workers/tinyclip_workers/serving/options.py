"""What a deployment is told when it starts."""

from typing import Literal

from pydantic import Field
from tinyclip.schemas._base import Request
from tinyclip.schemas.registry import EngineName


class ServingOptions(Request):
    """The `args` of the Serve application. The control plane sets the first seven; the rest are limits with defaults."""

    name: str
    """Of the deployment."""
    model: str
    """`name@version`, as answers show it."""
    model_uri: str
    """Folder of the model version in open_clip's layout: a local path or an fsspec URI."""
    artifacts: str
    """Root of the artifacts store, for the indexes."""
    engine: EngineName = "auto"
    project: str = "default"
    """Whose tokens are accepted."""
    auth: Literal["none", "tokens"] = "none"
    """`tokens`: nothing but /healthz answers without one."""
    engine_min_cosine: float = Field(default=0.99, gt=0, le=1)
    """Mean cosine to torch in fp32, on the version's calibration pictures, that `auto` asks of an engine."""
    threads: int = Field(default=1, ge=1)
    """Compute threads of a replica: replicas scale better than threads."""
    max_batch_images: int = Field(default=32, ge=1)
    max_batch_texts: int = Field(default=64, ge=1)
    batch_wait_s: float = Field(default=0.002, ge=0)
    """How long the first item of a batch waits for company; while a batch is computed the next one gathers anyway."""
    max_body_bytes: int = Field(default=128 * 2**20, ge=1)
    max_image_bytes: int = Field(default=20 * 2**20, ge=1)
    max_texts: int = Field(default=50_000, ge=1)
    """Texts of one request, labels times templates."""
    text_cache_bytes: int = Field(default=64 * 2**20, ge=0)
    """Memory for embeddings of texts seen before."""
