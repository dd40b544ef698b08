"""The engine of TinyCLIP: it trains, evaluates, exports, indexes and serves models.

Its packages, lowest layer first; each imports only those below it: `types`, `runtime`, `model`, `inheritance`, `data`, `engines`,
`costs`, `evaluation`, `versions`, `finalists`, `training`, `retrieval`, `importing` and `exporting`, `plan`, `searching`,
`serving`. `jobs` is the entry point of Ray jobs other than training, `planner` the process that answers the control plane's
questions.
"""

from importlib.util import find_spec

from tinyclip.errors import MissingExtra

for _package in ("torch", "ray", "open_clip", "webdataset"):
    if find_spec(_package) is None:
        raise MissingExtra("workers", _package)

from tinyclip_workers.runtime import addresses  # noqa: E402 -- after the check: it needs packages of the extra

addresses.guard_http()
