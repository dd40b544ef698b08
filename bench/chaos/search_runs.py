"""The search of `bench.chaos.searches`, and a running one observed through its files."""

from pathlib import Path
from typing import Any

from tinyclip.errors import CannotReachServer, ProblemError
from tinyclip.schemas import ModelVersion, Search
from tinyclip.schemas.spec import ImageTower, StudentSpec, TextTower
from tinyclip.specfile import load_spec
from tinyclip_workers.model.architecture import resolve_layout

from bench.chaos.jobs import RunningJob, write_inputs
from bench.chaos.machine import wait_until
from bench.chaos.profiles import Profile
from tests.workers.models import tiny_model, write_folder

TEACHER = StudentSpec(
    embed_dim=32,
    image=ImageTower(layers=(1, 1, 2, 1), width=16, head_width=32, image_size=32),
    text=TextTower(layers=3, width=32, heads=4, context_length=16),
)
"""Large enough for students of different widths, whose trials have one stage each."""
STEPS = 240
"""Steps of a whole training; the first rung has a quarter of them."""
CHECKPOINT_STEPS = 20
MIN_QUALITY = 0.5
MAX_PARAMS = 2_900_000
"""A little less than the teacher's; its token embedding has 1.6 million."""
AT_ONCE = 2
SEARCH_SECONDS = 3600.0
"""Time limit of a search."""


def search_request(folder: Path, *, trials: int, seed: int) -> dict[str, Any]:
    """Write data and a teacher below `folder`, and return the request: the cheapest student of a certain quality."""
    layout = resolve_layout(TEACHER, None)
    file = write_inputs(folder)
    write_folder(folder / "teacher", tiny_model(layout=layout), layout)
    spec = load_spec(file)
    stage = {
        "name": "smaller", "inherit": "manual", "student": {"text": {"layers": 2}}, "train": {"steps": STEPS},
        "objective": {"contrastive": 1},
    }  # fmt: skip
    checkpoint = {"every_steps": CHECKPOINT_STEPS, "keep": 2}
    return {
        "spec": {**spec, "name": "searched", "stages": [stage], "checkpoint": checkpoint, "max_attempts": 20},
        "constraints": [{"task": "captions", "metric": "text_to_image_r1", "min": MIN_QUALITY}, {"params": {"max": MAX_PARAMS}}],
        "minimize": "macs",
        "budget": {"trials": trials, "at_once": AT_ONCE},
        "seed": seed,
    }


class TrialJob(RunningJob):
    """The job of a trial, which the search has created."""

    def __init__(self, profile: Profile, job: str, spec: dict[str, Any]) -> None:
        self.client, self.files, self.id, self.spec = profile.client, profile.files, job, spec
        self._segments: dict[str, list[dict[str, Any]]] = {}
        self.begun = 0.0


class RunningSearch:
    """A search on a profile, observed through the files of its jobs, which are the only ones there."""

    def __init__(self, profile: Profile, request: dict[str, Any], inputs: Path) -> None:
        """Create it; `inputs` is the folder of its data and teacher."""
        self._profile, self.inputs = profile, str(inputs)
        self.id = profile.client.searches.create(request).id
        self.post = request

    def jobs(self) -> list[TrialJob]:
        """Return the jobs whose drivers have started, in the order of their ids."""
        started = self._profile.files.names("jobs/*/attempts/1/driver.json")
        return [self.job(path.split("/")[1]) for path in sorted(started)]

    def running(self) -> list[TrialJob]:
        """Return those of the jobs that have not ended."""
        return [job for job in self.jobs() if not job.has_ended()]

    def job(self, id: str) -> TrialJob:
        return TrialJob(self._profile, id, self.post["spec"])

    def job_parents(self) -> dict[str, tuple[str, int] | None]:
        """Return the search and the trial of each job that there is."""
        jobs = self._profile.client.jobs.list()
        return {job.id: (job.parent.search, job.parent.trial) if job.parent is not None else None for job in jobs}

    def version(self, version: int) -> ModelVersion:
        return self._profile.client.models.version(f"{self.post['spec']['name']}@{version}")

    def get_if_available(self) -> Search | None:
        """Return the search from the API; None while that does not answer."""
        try:
            return self._profile.client.searches.get(self.id)
        except (CannotReachServer, ProblemError):
            return None

    def wait_for_end(self) -> Search:
        """Wait for its end, successful or not, and return it."""
        found: list[Search] = []

        def has_ended() -> bool:
            shown = self.get_if_available()
            found[:] = [shown] if shown is not None else []
            return shown is not None and shown.state.terminal

        wait_until(has_ended, f"the end of {self.id}", SEARCH_SECONDS, every=1.0)
        return found[0]

    def story(self) -> list[str]:
        """Return its events, to explain a failure."""
        events = self._profile.client.searches.events_page(self.id, page_size=500).items
        return [f"{event.type}: {event.message}" for event in events]
