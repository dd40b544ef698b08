"""The settings of a deployment: those a replica starts with, and those that change while it runs."""

from typing import Literal

from pydantic import Field
from tinyclip.schemas._base import Request
from tinyclip.schemas.deployments import EngineName
from tinyclip.schemas.inference import MAX_QUERY_BYTES


class ServingOptions(Request):
    """The `args` of the Serve application. The control plane sets the first eight and `image_url*`; others have defaults."""

    name: str
    """The deployment's name."""
    model: str
    """`name@version`, as answers show it."""
    model_uri: str
    """Folder of the model version in open_clip's layout: a local path or an fsspec URI."""
    artifacts: str
    """Root of the artifacts store, which holds the indexes, the label sets and the token digests."""
    engine: EngineName = "auto"
    project: str = "default"
    """The project whose tokens are accepted."""
    auth: Literal["none", "tokens"] = "none"
    """`tokens`: every route but the open ones needs a token."""
    hosts: list[str] | None = []
    """Names besides loopback ones that the Host header of a request without a token may have; None: any."""
    engine_min_cosine: float = Field(default=0.99, gt=0, le=1)
    """Least mean cosine to torch in fp32, on the version's calibration images, for an engine that `auto` may choose."""
    threads: int = Field(default=1, ge=1)
    """Compute threads of a replica: replicas scale better than threads."""
    max_batch_images: int = Field(default=32, ge=1)
    """Upper limit of a batch; a replica uses smaller ones where larger ones are no faster per image (`engines.batch_size`)."""
    max_batch_texts: int = Field(default=64, ge=1)
    batch_wait_s: float = Field(default=0.002, ge=0)
    """The batching window: how long an idle queue waits for more items. A busy one gathers while it computes."""
    max_body_bytes: int = Field(default=MAX_QUERY_BYTES, ge=1)
    max_held_bytes: int = Field(default=256 * 2**20, ge=1)
    """Bytes of all bodies and fetched images of the requests that a replica answers; above it requests are answered 429."""
    max_scores: int = Field(default=100_000, ge=1)
    """Scores of one zero-shot answer: images times `top_k`."""
    max_image_bytes: int = Field(default=20 * 2**20, ge=1)
    max_texts: int = Field(default=50_000, ge=1)
    """Texts of one request: labels times templates."""
    text_cache_bytes: int = Field(default=128 * 2**20, ge=0)
    """Memory for cached text embeddings."""
    max_waiting_images: int = Field(default=256, ge=1)
    """Images admitted by a replica and not yet done; at this number further requests are answered 429."""
    max_waiting_texts: int = Field(default=8192, ge=1)
    """The same limit for texts whose embedding is not cached."""
    request_timeout_s: float = Field(default=30.0, gt=0)
    """A request that takes longer is answered 504; its items that still wait are not computed."""
    image_urls: bool = False
    """Accept http(s) URLs as images, which the replica fetches."""
    image_url_hosts: list[str] = []
    """Fetch only from these hosts and their subdomains; empty: from any public host."""
    image_url_timeout_s: float = Field(default=5.0, gt=0)
    """Time limit of one image, from the lookup of its host to its last byte."""


class CanaryConfig(Request):
    """A second version that answers a share of the queries."""

    model: str
    """`name@version`."""
    model_uri: str
    weight: float = Field(gt=0, lt=1)
    """The share of the queries that it answers."""


class UserConfig(Request):
    """The `user_config` of the Serve deployment: what a running replica applies without a restart."""

    canary: CanaryConfig | None = None
    models: dict[str, str] = {}
    """Further models, name to folder; each is loaded at its first query."""
    resident: int = Field(default=4, ge=1)
    """Number of further models that stay in memory."""
    owner: str = ""
    """The installation that the application belongs to; for the control plane, like the next one."""
    revision: str = ""
    """The request that this configuration is from."""
