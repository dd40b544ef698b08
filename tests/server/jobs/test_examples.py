"""`/v1/examples`: the specs of the examples on the server's machine."""

from pathlib import Path

import pytest
import yaml
from tinyclip.specfile import with_absolute_paths

from tests.server.service import Service, Start

EXAMPLES = Path(__file__).parents[3] / "examples"


async def test_the_examples_of_the_clone_can_be_submitted_as_they_are(service: Service) -> None:
    items = {item["name"]: item for item in (await service.http.get("/v1/examples")).json()["items"]}

    assert items["emoji/half.yaml"]["title"] == "Half of a CLIP"
    text = items["emoji/half.yaml"]["spec"]
    assert "# six captions an image" in text
    response = await service.http.post("/v1/jobs", params={"validate_only": True}, json=yaml.safe_load(text))
    assert response.status_code == 200, response.text


async def test_what_is_no_job_or_names_what_is_not_there_is_left_out(service: Service) -> None:
    names = {item["name"] for item in (await service.http.get("/v1/examples")).json()["items"]}

    assert "emoji/dataset.yaml" not in names
    assert not any(name.startswith(("caltech101/", "published/")) for name in names)


async def test_examples_outside_of_the_data_roots_are_left_out(start: Start, tmp_path: Path) -> None:
    service = await start(data_roots=[str(tmp_path)])

    assert (await service.http.get("/v1/examples")).json()["items"] == []


async def test_an_installation_without_examples_has_none(start: Start, tmp_path: Path) -> None:
    service = await start(examples=tmp_path / "nothing")

    assert (await service.http.get("/v1/examples")).json()["items"] == []


@pytest.mark.parametrize("name", ["emoji/half.yaml", "emoji/languages.yaml"])
def test_comments_and_all_else_of_a_spec_stay(name: str) -> None:
    file = EXAMPLES / name
    text = file.read_text()

    absolute = with_absolute_paths(text, file.parent)

    assert absolute.replace(f"{file.parent}/", "") == text
    assert f"local-dir:{file.parent}/teachers/vit" in absolute
