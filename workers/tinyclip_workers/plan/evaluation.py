"""What is wrong with an evaluation before it is run: models that cannot be found, tasks that do not fit their data."""

from collections.abc import Mapping
from typing import Any

from tinyclip.artifacts.documents import EvaluationRequest

from tinyclip_workers.model.sources import TeacherError, check_teacher
from tinyclip_workers.plan.data import Diagnostics
from tinyclip_workers.plan.tasks import Training, check_tasks


def evaluation_errors(request: Mapping[str, Any]) -> dict[str, Any]:
    """`{"errors": […], "warnings": […]}` of an `EvaluationRequest` as plain data; pointers lead into what the user posted.

    Looks at configurations and headers of weights and at samples of the shards; loads and downloads no weights.
    """
    asked, diagnostics = EvaluationRequest.model_validate(request), Diagnostics()
    for pointer, model in (("/model", asked.model), ("/against", asked.against)):
        if model is None:
            continue
        try:
            check_teacher(model.source)
        except TeacherError as error:
            diagnostics.error(pointer, model.name, error.message)
    training = Training(set(), asked.holdout, holdout_place="holdout")
    check_tasks(asked.tasks, training, "/tasks", diagnostics)
    return {"errors": [error.model_dump(mode="json") for error in diagnostics.errors], "warnings": diagnostics.warnings}
