"""Print the OpenAPI document of the control plane, from which `npm run types` makes the console's API types."""

import json
import tempfile
from pathlib import Path

from tinyclip_server.api.app import create_app
from tinyclip_server.settings import Settings


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder), auth="none"), schedule=False)
        print(json.dumps(app.openapi(), sort_keys=True))


if __name__ == "__main__":
    main()
