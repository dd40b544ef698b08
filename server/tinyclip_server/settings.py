"""Settings of the control plane: flags, then `TINYCLIP_*` variables, then a TOML file, then the defaults here."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from tinyclip.addresses import ARTIFACTS_ROOT, DATA_ROOTS, RAY_TOKEN_PATH, AddressRules, root_problem, service_problem
from tinyclip.cluster import FIXED_CPUS


def _config_file() -> Path:
    given = os.environ.get("TINYCLIP_CONFIG")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tinyclip" / "server.toml"


def _default_data_dir() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tinyclip"


class Settings(BaseSettings):
    """The settings of a server, embedded or in production."""

    model_config = SettingsConfigDict(env_prefix="TINYCLIP_", extra="forbid")

    data_dir: Path = Field(default_factory=_default_data_dir)
    """Folder of everything that the embedded service writes."""
    database_url: str = ""
    """`sqlite:///PATH` or `postgresql://…`; empty: a SQLite file in `data_dir`."""
    artifacts: str = ""
    """Root of the artifacts store: a local path or any fsspec URI that all nodes reach; empty: a folder in `data_dir`."""
    index_database_url: str = ""
    """`postgresql://…` of a database with pgvector, for indexes whose `store` is `pgvector`; nodes need it too."""
    ray_address: str = ""
    """`http://HOST:PORT` of a cluster's dashboard; empty: `tinyclip-server up` starts a local cluster."""
    cluster_name: str = ""
    """Name of the Ray cluster in the record of attempts; empty: its address. Set it where the address may change."""
    embedded_ray_with_postgresql: bool = False
    """Allow a local cluster although the database is PostgreSQL, which may already have servers with another cluster."""
    ray_token_path: Path | None = None
    """File with the cluster's token; unset: Ray's own `RAY_AUTH_TOKEN` or `RAY_AUTH_TOKEN_PATH` applies."""
    ray_dashboard_url: str = ""
    """Address of Ray's dashboard for browsers; empty: that of an embedded cluster, if the service is used from this machine."""
    ray_object_store_bytes: int = Field(default=256 << 20, ge=80 << 20)
    """Memory of an embedded cluster's object store; training data does not pass through it."""
    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535)
    serve_port: int = Field(default=8322, ge=1, le=65535)
    """Port at which Ray Serve answers queries to deployments."""
    serve_url: str = ""
    """Public URL of the Serve proxy; empty: `http://<host>:<serve_port>`."""
    auth: Literal["none", "tokens"] = "none"
    """`tokens`: the API and deployments require one; `none`: they serve every caller on this machine and no other."""
    allow_public: bool = False
    """Allow a public address although `auth` is `none`: only behind a proxy that authenticates."""
    max_body_bytes: int = Field(default=16 << 20, ge=1 << 10)
    """Largest body that adds items to an index, and at most 4 MiB of any other request; for uploads see `max_import_bytes`."""
    max_connections: int = Field(default=800, ge=1)
    """Connections to the API at once; further ones are refused with 503."""
    max_connections_per_address: int = Field(default=256, ge=1)
    """Connections at once from one address, refused with 429; behind a proxy, all requests come from the address of the proxy."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Limit of one token, counted by each server separately; unset: 1200 with tokens, unlimited without."""
    data_roots: list[str] = []
    """Folders and URI prefixes to which addresses in requests are restricted; empty, only without tokens: any address."""
    allow_private_urls: bool = False
    """Allow shards and weights at http(s) addresses on this machine and in private networks."""
    serve_image_urls: bool = False
    """Allow image URLs in queries; replicas fetch them from public addresses only, regardless of other settings."""
    serve_image_url_hosts: list[str] = []
    """Hosts, with their subdomains, from which images are fetched; empty: any public host, at ports 80 and 443."""

    examples: Path | None = None
    """Folder of examples that the console offers; unset: that of the clone from which the server is installed, if it is."""

    log_format: Literal["auto", "human", "json"] = "auto"
    """Format of standard error; auto: human at a terminal, else JSON. `logs/server.log` is JSON only with `json`."""

    max_running_jobs: int | None = Field(default=None, ge=1)
    """Jobs on the cluster at once; unset: 1 on an embedded cluster, else 16. The trials of a search count as one."""
    tick_seconds: float = Field(default=0.4, gt=0)
    """Pause between two runs of the scheduler, each of which reads the new events of workers."""
    status_seconds: float = Field(default=2.0, ge=0)
    """Interval at which Ray's status of a running attempt is read."""
    lease_seconds: float = Field(default=30.0, gt=0)
    """Time after which a lease on a job expires unless its server renews it, and limit of an idle transaction in PostgreSQL."""
    stop_grace_seconds: float = Field(default=20.0, ge=0)
    """Time that a running attempt has for a graceful shutdown before Ray stops it."""
    unknown_grace_seconds: float = Field(default=60.0, ge=0)
    """Time after which an attempt that Ray does not know is replaced by a new one."""
    progress_seconds: float = Field(default=7200.0, gt=0)
    """Time after which the registration or reinforcement of a data set, an evaluation, an export or an index's job without a new
    event is stopped and tried again. A training job has its own, in its spec."""
    worker_python: str = sys.executable
    """Interpreter with `tinyclip[workers]` on the cluster's nodes."""
    driver_cpus: float | None = Field(default=None, ge=0)
    """CPUs that a job's driver reserves; unset: drivers run on the head node, with a number on any node."""
    planner_command: list[str] = Field(default_factory=lambda: [sys.executable, "-m", "tinyclip_workers.planner"])
    planner_timeout_seconds: float = Field(default=120.0, gt=0)
    """Time limit of one plan. A request waits as long at most for its turn, then it is refused with 429."""
    planner_processes: int = Field(default=2, ge=1, le=64)
    """Processes that plan, and read samples of data sets; started when needed, one for a project at a time. One takes 420 MiB."""
    planner_memory_bytes: int = Field(default=4 << 30, ge=1 << 30)
    """Memory that one of them can allocate. Without any work it takes 0.4 GiB of it with torch for CPUs."""
    import_command: list[str] = Field(default_factory=lambda: [sys.executable, "-m", "tinyclip_workers.importing.convert"])
    import_timeout_seconds: float = Field(default=600.0, gt=0)
    """Time limit for reading, converting and writing an imported model, without its upload."""
    import_memory_bytes: int | None = Field(default=None, ge=1 << 30)
    """Memory that an import can allocate; unset: 2 GiB and three times `max_import_bytes`, at most 3/4 of the machine's."""
    max_import_bytes: int = Field(default=8 << 30, ge=1)
    """Largest file of an import, uploaded or at a path."""
    keep_checkpoints_days: float = Field(default=30.0, ge=0)
    """Checkpoints of an ended job, for a retry; `inf`, here and below: as long as the job. Model versions are never removed."""
    keep_logs_days: float = Field(default=90.0, ge=0)
    """Log lines of an ended job, and the event segments that contain them."""
    keep_events_days: float = Field(default=float("inf"), ge=0)
    """The history of an ended job. Its metrics are kept."""
    keep_ray_jobs_days: float = Field(default=7.0, ge=0)
    """Ray's own records of ended jobs, which its dashboard lists."""
    keep_orphans_days: float = Field(default=30.0, ge=0)
    """Folders of the artifacts store that belong to no job and to no version of a data set, counted from their last change."""
    idempotency_hours: float = Field(default=24.0, ge=24.0)

    _embedded: bool = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        self._embedded = not self.ray_address

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("data_roots")
    @classmethod
    def _usable_roots(cls, value: list[str]) -> list[str]:
        for root in value:
            if problem := root_problem(root):
                raise ValueError(f"{root} {problem}")
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
        """Return whether the service starts its own Ray cluster; also in copies in which `ray_address` is that cluster's."""
        return self._embedded

    @property
    def embedded_cpus(self) -> int:
        """Return the CPUs of an embedded cluster: this machine's, but two on a machine with one, as the examples use two."""
        return max(2, os.cpu_count() or 1)

    @property
    def cluster(self) -> str:
        """Return the name under which attempts record the cluster that they run on."""
        return self.cluster_name or self.ray_address

    @property
    def async_database_url(self) -> str:
        """Return the database's URL with the async driver."""
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
    def examples_folder(self) -> Path | None:
        """Return the folder of the examples; None if there is none."""
        folder = self.examples or Path(__file__).parents[2] / "examples"
        return folder.absolute() if folder.is_dir() else None

    @property
    def serve_base_url(self) -> str:
        """Return the URL at which clients reach deployments, without a trailing slash."""
        return (self.serve_url or f"http://{self.host}:{self.serve_port}").rstrip("/")

    @property
    def address_rules(self) -> AddressRules:
        """Return the rules for addresses in requests."""
        return AddressRules(tuple(self.data_roots), tuple(self._service_places()), self.allow_private_urls)

    @property
    def roots_problem(self) -> str | None:
        """Return why the service must not start with these roots, and what to do; None if it may."""
        if self.auth == "tokens" and not self.data_roots:
            return (
                f"with TINYCLIP_AUTH=tokens {DATA_ROOTS} must name what users of a token may read, as '[\"/datasets\", "
                "\"s3://bucket/pairs\"]': without it every token reads every file of this machine and of its nodes"
            )
        inside = [root for root in self.data_roots if service_problem(root, self.address_rules.service)]
        return f"{inside[0]} in {DATA_ROOTS} belongs to the service itself; name a place beside it" if inside else None

    @property
    def cluster_problem(self) -> str | None:
        """Return why the service must not start a cluster of its own, and what to do; None if it may, or has an address."""
        if not self.embedded or self.embedded_ray_with_postgresql or self.async_database_url.startswith("sqlite"):
            return None
        return (
            "TINYCLIP_DATABASE_URL is a PostgreSQL and no TINYCLIP_RAY_ADDRESS is set, so this server would start a cluster of "
            "its own; set TINYCLIP_RAY_ADDRESS to the cluster of the other servers, or TINYCLIP_EMBEDDED_RAY_WITH_POSTGRESQL=1 "
            "if there are none"
        )

    def _service_places(self) -> Iterator[str]:
        """Yield the folders, files and URI prefixes of the service itself."""
        yield from (self.artifacts_root, str(self.data_dir), str(_config_file()))
        yield from (str(path) for path in (self.ray_token_path, os.environ.get(RAY_TOKEN_PATH)) if path)
        if self.async_database_url.startswith("sqlite"):
            database = self.async_database_url.partition(":///")[2].partition("?")[0]
            yield from (database + suffix for suffix in ("", "-wal", "-shm", "-journal"))

    @property
    def worker_environment(self) -> dict[str, str]:
        """Return the environment variables that the engine's processes get on every node."""
        return {**self.address_rules.environment(), ARTIFACTS_ROOT: self.artifacts_root}

    @property
    def import_memory_limit(self) -> int:
        """Return the bytes of memory that an import can allocate."""
        needed = (2 << 30) + 3 * self.max_import_bytes
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return self.import_memory_bytes or min(needed, machine * 3 // 4)

    @property
    def planner_environment(self) -> dict[str, str]:
        """Return the environment variables of the planner, which refuses what an embedded cluster can never run."""
        return self.worker_environment | ({FIXED_CPUS: str(self.embedded_cpus)} if self.embedded else {})

    @property
    def request_limit(self) -> int | None:
        """Return the limit of requests per minute of one token or address, if any."""
        return self.requests_per_minute or (1200 if self.auth == "tokens" else None)

    @property
    def running_limit(self) -> int:
        return self.max_running_jobs or (1 if self.embedded else 16)
