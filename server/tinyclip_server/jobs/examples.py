"""`/v1/examples`: job specs among the examples on the server's machine, for users who have none of their own yet.

A clone has them beside its packages; `TINYCLIP_EXAMPLES` names another folder. An example is listed if all that it names is there
and may be read.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from fastapi import APIRouter
from pydantic import ValidationError
from tinyclip.addresses import AddressRules, resolver
from tinyclip.errors import InputError
from tinyclip.schemas import Example, JobSpec, Page
from tinyclip.schemas.addresses import addresses_in
from tinyclip.specfile import load_spec, with_absolute_paths

from tinyclip_server.http.services import ServicesDep

router = APIRouter(prefix="/examples", tags=["jobs"])

MOST_FILES = 200
_PATTERN = re.compile(r"[{*?\[]")


@router.get("", response_model=Page[Example])
async def find(services: ServicesDep) -> Page[Example]:
    """List the examples that this server can run as they are; none if it is not installed from a clone."""
    folder = services.settings.examples_folder
    found = [] if folder is None else await asyncio.to_thread(lambda: list(_examples(folder, services.settings.address_rules)))
    return Page(items=found)


def _examples(folder: Path, rules: AddressRules) -> Iterator[Example]:
    for file in sorted(folder.glob("*/*.yaml"))[:MOST_FILES]:
        try:
            spec = JobSpec.model_validate(load_spec(file))
            text = with_absolute_paths(file.read_text(encoding="utf-8"), file.parent)
        except (InputError, ValidationError, OSError, yaml.YAMLError):
            continue  # not a job, as the description of a data set
        resolve = resolver()
        places = [address for _, address in addresses_in(spec)]
        if places and all(_exists(place) and rules.problem(place, resolve) is None for place in places):
            yield Example(name=file.relative_to(folder).as_posix(), title=_title(text), spec=text)


def _exists(address: str) -> bool:
    """Return whether a local file or folder exists; of a pattern, its folder with anything in it."""
    pattern = _PATTERN.search(address)
    if pattern is None:
        return Path(address).exists()
    folder = Path(address[: pattern.start()]).parent
    return folder.is_dir() and any(folder.iterdir())


def _title(text: str) -> str:
    """Return the first sentence of the comment at the beginning."""
    first = text.split("\n", 1)[0]
    return re.split(r"(?<=\w)[.:](?:\s|$)", first.lstrip("# ").strip())[0] if first.startswith("#") else ""
