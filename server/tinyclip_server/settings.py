"""Settings of the control plane: flags, then `TINYCLIP_*` variables, then a TOML file, then the defaults here."""

import json
import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from tinyclip.addresses import ALLOW_PRIVATE, READABLE_ROOTS


def _config_file() -> Path:
    given = os.environ.get("TINYCLIP_CONFIG")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tinyclip" / "server.toml"


def _default_data_dir() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tinyclip"


class Settings(BaseSettings):
    """What differs between the embedded service and production; the code is the same."""

    model_config = SettingsConfigDict(env_prefix="TINYCLIP_", extra="forbid")

    data_dir: Path = Field(default_factory=_default_data_dir)
    """Everything the embedded service writes lies below it."""
    database_url: str = ""
    """`sqlite:///PATH` or `postgresql://…`; empty: a SQLite file in `data_dir`."""
    artifacts: str = ""
    """Root of the artifacts store: a local path or any fsspec URI that all nodes reach; empty: a folder in `data_dir`."""
    index_database_url: str = ""
    """`postgresql://…` of a database with the extension vector, for indexes whose `store` is `pgvector`; nodes need it too."""
    ray_address: str = ""
    """`http://HOST:PORT` of a cluster's dashboard; empty: `tinyclip-server up` starts a local cluster."""
    ray_token_path: Path | None = None
    """File with the cluster's token; null: what Ray's own `RAY_AUTH_TOKEN` or `RAY_AUTH_TOKEN_PATH` says, if anything."""
    ray_object_store_bytes: int = Field(default=256 << 20, ge=80 << 20)
    """Memory of an embedded cluster's object store; training data does not pass through it."""
    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535)
    serve_port: int = Field(default=8322, ge=1, le=65535)
    """Where Ray Serve answers queries to deployments."""
    serve_url: str = ""
    """Public URL of the Serve proxy; empty: `http://<host>:<serve_port>`."""
    auth: Literal["none", "tokens"] = "none"
    """`tokens`: the API and deployments ask for one; `none`: they serve whoever reaches them, which is this machine alone."""
    allow_public: bool = False
    """Bind a public address although `auth` is `none`: only behind a proxy that authenticates."""
    max_body_bytes: int = Field(default=16 << 20, ge=1 << 10)
    """Of one request, but for uploads of models, which have a limit of their own."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Of one token, counted by each server for itself; null: 1200 with tokens, any number without."""
    data_roots: list[Path] = []
    """Folders that local paths of specs, imports, indexes and evaluations must lie in; empty: any path that workers can read."""
    allow_private_urls: bool = False
    """Let specs name http(s) addresses on this machine and in private networks, as their shards or weights."""
    serve_image_urls: bool = False
    """Let queries name images by http(s) URL, which replicas fetch: from public addresses only, whatever else is set."""
    serve_image_url_hosts: list[str] = []
    """Fetch images from these hosts and what is below them only; empty: from any public one, at ports 80 and 443."""

    log_format: Literal["auto", "human", "json"] = "auto"
    """Of the lines on standard error; auto: human at a terminal, else JSON. `logs/server.log` is JSON only with json."""

    max_running_jobs: int | None = Field(default=None, ge=1)
    """Jobs on the cluster at once; null: 1 on an embedded cluster, 16 on one given by address."""
    tick_seconds: float = Field(default=0.4, gt=0)
    """Pause between two rounds of the scheduler, which read what workers wrote."""
    status_seconds: float = Field(default=2.0, ge=0)
    """How often Ray is asked about a running attempt."""
    lease_seconds: float = Field(default=30.0, gt=0)
    """How long a job stays with a scheduler that no longer renews its claim."""
    stop_grace_seconds: float = Field(default=20.0, ge=0)
    """How long a running attempt may take to leave by itself before Ray is told to stop it."""
    unknown_grace_seconds: float = Field(default=60.0, ge=0)
    """How long Ray may not know a submitted attempt before a new one is made."""
    worker_python: str = sys.executable
    """Interpreter on the cluster's nodes that has `tinyclip[workers]`."""
    driver_cpus: float | None = Field(default=None, ge=0)
    """CPUs that a job's driver reserves; null keeps drivers on the head node, any number lets them run elsewhere."""
    planner_command: list[str] = Field(default_factory=lambda: [sys.executable, "-m", "tinyclip_workers.plan.planner"])
    planner_timeout_seconds: float = Field(default=120.0, gt=0)
    import_command: list[str] = Field(default_factory=lambda: [sys.executable, "-m", "tinyclip_workers.importing.convert"])
    import_timeout_seconds: float = Field(default=600.0, gt=0)
    """How long reading, converting and writing one imported model may take; its upload is not counted."""
    max_import_bytes: int = Field(default=8 << 30, ge=1)
    """Of an uploaded file, or of one that the server is told to read."""
    keep_checkpoints_days: float = Field(default=30.0, ge=0)
    """Of an ended job, for a retry; `inf`, here and below: as long as the job. Model versions are never removed."""
    keep_logs_days: float = Field(default=90.0, ge=0)
    """Log lines of an ended job, and the event segments that they came in."""
    keep_events_days: float = Field(default=float("inf"), ge=0)
    """The history of an ended job. Its numbers (`metrics`) stay."""
    keep_ray_jobs_days: float = Field(default=7.0, ge=0)
    """Ray's own records of our jobs that are over, with their entry in its dashboard."""
    keep_orphans_days: float = Field(default=30.0, ge=0)
    """Folders of the artifacts store that belong to no job, after their last change."""
    idempotency_hours: float = Field(default=24.0, ge=24.0)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("data_roots")
    @classmethod
    def _whole_roots(cls, value: list[Path]) -> list[Path]:
        for root in value:
            if not root.is_absolute():
                raise ValueError(f"{root} is a relative path, which differs from process to process; give absolute ones")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _config_file())

    @property
    def embedded(self) -> bool:
        """Whether we start Ray ourselves."""
        return not self.ray_address

    @property
    def async_database_url(self) -> str:
        """The database's URL with the async driver named."""
        url = self.database_url or f"sqlite:///{self.data_dir / 'tinyclip.db'}"
        for plain, driver in (("sqlite://", "sqlite+aiosqlite://"), ("postgresql://", "postgresql+asyncpg://")):
            if url.startswith(plain):
                return driver + url.removeprefix(plain)
        return url

    @property
    def artifacts_root(self) -> str:
        root = self.artifacts or str(self.data_dir / "artifacts")
        return root.rstrip("/") if "://" in root else str(Path(root).expanduser().absolute())

    @property
    def serve_base_url(self) -> str:
        """Where clients reach deployments, without a trailing slash."""
        return (self.serve_url or f"http://{self.host}:{self.serve_port}").rstrip("/")

    @property
    def worker_environment(self) -> dict[str, str]:
        """What the engine's processes are told by variables, wherever they run."""
        ours = [str(self.data_dir / "imports"), *([] if "://" in self.artifacts_root else [self.artifacts_root])]
        readable = [*map(str, self.data_roots), *ours] if self.data_roots else []
        return {ALLOW_PRIVATE: "1" if self.allow_private_urls else "0", READABLE_ROOTS: json.dumps(readable)}

    @property
    def request_limit(self) -> int | None:
        """Requests a minute of one token (or address), if any."""
        return self.requests_per_minute or (1200 if self.auth == "tokens" else None)

    @property
    def running_limit(self) -> int:
        return self.max_running_jobs or (1 if self.embedded else 16)
