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
    if not teacher.model.startswith(REGISTRY):
        return teacher
    async with services.db.read() as session:
        try:
            name, version = await service.resolve(session, project, teacher.model.removeprefix(REGISTRY))
        except ApiError as error:
            raise InvalidInput.field(f"{pointer}/model", teacher.model, error.detail, code="unknown_model") from error
    return teacher.model_copy(update={"model": f"{REGISTRY}{name}@{version}"})
