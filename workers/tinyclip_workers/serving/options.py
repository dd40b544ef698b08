"""What a deployment is told when it starts."""

from typing import Literal

from pydantic import Field
from tinyclip.schemas._base import Request
from tinyclip.schemas.deployments import EngineName


class ServingOptions(Request):
    """The `args` of the Serve application. The control plane sets the first seven and `image_url*`; others have defaults."""

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
    """A replica computes fewer together where more do not pay (`engine_batch`)."""
    max_batch_texts: int = Field(default=64, ge=1)
    batch_wait_s: float = Field(default=0.002, ge=0)
    """How long the first item of a batch waits for company; while a batch is computed the next one gathers anyway."""
    max_body_bytes: int = Field(default=128 * 2**20, ge=1)
    max_image_bytes: int = Field(default=20 * 2**20, ge=1)
    max_texts: int = Field(default=50_000, ge=1)
    """Texts of one request, labels times templates."""
    text_cache_bytes: int = Field(default=128 * 2**20, ge=0)
    """Memory for embeddings of texts seen before."""
    max_waiting_images: int = Field(default=256, ge=1)
    """Images on their way through a replica; where there are as many, another request is answered 429."""
    max_waiting_texts: int = Field(default=8192, ge=1)
    """The same for texts whose embedding is not known yet."""
    request_timeout_s: float = Field(default=30.0, gt=0)
    """A request that takes longer is answered 504, and what of it still waits is not computed."""
    image_urls: bool = False
    """Whether images may be http(s) URLs, which the replica then fetches."""
    image_url_hosts: list[str] = []
    """Fetch from these and what is below them only; empty: from any public host."""
    image_url_timeout_s: float = Field(default=5.0, gt=0)
    """Of one image, from the look-up of its host to its last byte."""


class CanaryAt(Request):
    """A version that is tried out."""

    model: str
    """`name@version`, as all models here."""
    model_uri: str
    weight: float = Field(gt=0, lt=1)
    """The share of the queries that it answers."""


class Wanted(Request):
    """The `user_config` of the Serve deployment: what a running replica takes over without a restart."""

    canary: CanaryAt | None = None
    models: dict[str, str] = {}
    """Folders of further models, which are loaded when first asked for."""
    resident: int = Field(default=4, ge=1)
    """How many of them stay in memory."""
