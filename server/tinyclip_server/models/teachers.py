"""Teachers of requests: `registry:NAME@ALIAS` becomes a version number, which workers find in the artifacts store."""

from typing import TypeVar

from tinyclip.schemas.spec import TeacherSpec

from tinyclip_server.http.services import Services
from tinyclip_server.models import service
from tinyclip_server.problems import ApiError, InvalidInput

REGISTRY = "registry:"

Teacher = TypeVar("Teacher", bound=TeacherSpec)


async def pin(services: Services, project: str, teacher: Teacher, pointer: str) -> Teacher:
    """Return the teacher with its version's number. Raises InvalidInput if there is no such version."""
    model = await pin_model(services, project, teacher.model, f"{pointer}/model")
    return teacher if model == teacher.model else teacher.model_copy(update={"model": model})


async def pin_model(services: Services, project: str, model: str, pointer: str) -> str:
    """Return the model with its version's number. Raises InvalidInput if there is no such version."""
    if not model.startswith(REGISTRY):
        return model
    async with services.db.read() as session:
        try:
            name, version = await service.resolve(session, project, model.removeprefix(REGISTRY))
        except ApiError as error:
            raise InvalidInput.field(pointer, model, error.detail, code="unknown_model") from error
    return f"{REGISTRY}{name}@{version}"
