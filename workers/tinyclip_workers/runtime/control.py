"""The control file, as the training loop sees it: which attempt may write, and what the user wants."""

import json
import time
from enum import IntEnum

from tinyclip.artifacts.documents import Control
from tinyclip.artifacts.paths import job_control
from tinyclip.artifacts.store import ArtifactsStore


class Command(IntEnum):
    """What the loop should do now; the larger wins."""

    RUN = 0
    PAUSE = 1
    CANCEL = 2
    FENCED = 3
    """A newer attempt has taken over: leave without writing another byte."""


_DESIRED = {"run": Command.RUN, "pause": Command.PAUSE, "cancel": Command.CANCEL}


class ControlFile:
    """Reads `jobs/<job>/control.json` at most every `interval_s`."""

    def __init__(self, store: ArtifactsStore, job: str, attempt: int, *, interval_s: float = 1.0) -> None:
        self._store, self._path, self._attempt, self._interval_s = store, job_control(job), attempt, interval_s
        self._command, self._looked_at = Command.RUN, float("-inf")

    def poll(self) -> Command:
        """The last command that is known; looks again when it is older than the interval."""
        if time.monotonic() - self._looked_at >= self._interval_s:
            self._command = self.look()
        return self._command

    def look(self) -> Command:
        """Read the file now. If it cannot be read, the last command stands: storage that hiccups must not end a job."""
        self._looked_at = time.monotonic()
        try:
            control = Control.model_validate(json.loads(self._store.read_bytes(self._path)))
        except (OSError, ValueError):
            return self._command
        if control.fence > self._attempt:
            return Command.FENCED
        # What was wanted of an attempt before this one says nothing to this one.
        return _DESIRED[control.desired] if control.fence == self._attempt else Command.RUN
