"""The control file, read by the training loop: which attempt may write, and whether to pause or cancel."""

import json
import time
from enum import IntEnum

from tinyclip.artifacts.documents import Control
from tinyclip.artifacts.paths import group_stop, job_control
from tinyclip.artifacts.store import ArtifactsStore


class Command(IntEnum):
    """The command to the training loop; of several, the largest counts."""

    RUN = 0
    REGROUP = 1
    """Sent by the driver to an elastic worker group: write a checkpoint and stop; another group continues."""
    PAUSE = 2
    CANCEL = 3
    FENCED = 4
    """A newer attempt has superseded this one: exit without writing anything more."""


_DESIRED = {"run": Command.RUN, "pause": Command.PAUSE, "cancel": Command.CANCEL}


class ControlFile:
    """Reads `jobs/<job>/control.json`, and for an elastic group its own request to stop, at most every `interval_s`."""

    def __init__(self, store: ArtifactsStore, job: str, attempt: int, *, group: str = "", interval_s: float = 1.0) -> None:
        """`group`: the name of the elastic worker group that reads it."""
        self._store, self._path, self._attempt, self._interval_s = store, job_control(job), attempt, interval_s
        self._stop_path = group_stop(job, attempt, group) if group else None
        self._command, self._read_at = Command.RUN, float("-inf")

    def poll(self) -> Command:
        """Return the last known command, read again if it is older than the interval."""
        if time.monotonic() - self._read_at >= self._interval_s:
            self._command = self.read()
        return self._command

    def read(self) -> Command:
        """Read the file now. If that fails, the last command holds: a storage outage must not end a job."""
        self._read_at = time.monotonic()
        command = self._read_control()
        return max(command, Command.REGROUP) if self._is_to_stop() else command

    def _read_control(self) -> Command:
        try:
            control = Control.model_validate(json.loads(self._store.read_bytes(self._path)))
        except (OSError, ValueError):
            return self._command
        if control.fence > self._attempt:
            return Command.FENCED
        # The desired state of an earlier attempt does not apply to this one.
        return _DESIRED[control.desired] if control.fence == self._attempt else Command.RUN

    def _is_to_stop(self) -> bool:
        try:
            return self._stop_path is not None and self._store.exists(self._stop_path)
        except OSError:  # it is read again
            return False
