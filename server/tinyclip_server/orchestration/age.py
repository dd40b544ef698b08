"""The age of something read earlier, for a process that may have been suspended since."""

import time

from tinyclip_server.database.engine import now


class Age:
    """Seconds since its creation by the clock that is ahead: each kind of suspension stops at most one of the two."""

    def __init__(self) -> None:
        self._steady, self._wall = time.monotonic(), now()

    def seconds(self) -> float:
        return max(time.monotonic() - self._steady, (now() - self._wall).total_seconds())
