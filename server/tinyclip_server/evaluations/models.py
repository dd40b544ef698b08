"""What a user calls a model, as what a worker can load."""

from dataclasses import dataclass

from tinyclip.artifacts.documents import EvaluatedModel
from tinyclip.artifacts.paths import model_version
from tinyclip.schemas.spec import TeacherSpec

from tinyclip_server.http.services import Services
from tinyclip_server.models import service as models
from tinyclip_server.problems import ApiError, InvalidInput

ELSEWHERE = ("local-dir:", "hf-hub:")
REGISTRY = "registry:"


@dataclass(frozen=True)
class Named:
    """A model that was found by its name."""

    asked: EvaluatedModel
    registered: tuple[str, int] | None = None
    """Name and version of a registered one."""


async def named(services: Services, project: str, name: str, pointer: str) -> Named:
    """`NAME@VERSION` with its version pinned, `ARCHITECTURE/TAG`, `local-dir:…` or `hf-hub:…`. Raises InvalidInput."""
    if name.startswith(ELSEWHERE):
        return Named(EvaluatedModel(name=name, source=TeacherSpec(model=name)))
    if "/" in name and not name.startswith(REGISTRY):
        architecture, _, tag = name.rpartition("/")
        return Named(EvaluatedModel(name=name, source=TeacherSpec(model=architecture, pretrained=tag)))
    async with services.db.read() as session:
        try:
            model, version = await models.resolve(session, project, name.removeprefix(REGISTRY))
        except ApiError as error:
            way_out = "name a registered model as NAME@VERSION, an open_clip one as ARCHITECTURE/TAG"
            message = f"{error.detail}; {way_out}, or use local-dir:PATH or hf-hub:ORG/NAME"
            raise InvalidInput.field(pointer, name, message, code="unknown_model") from error
    source = TeacherSpec(model=f"local-dir:{services.store.uri(model_version(model, version))}")
    return Named(EvaluatedModel(name=f"{model}@{version}", source=source), (model, version))
