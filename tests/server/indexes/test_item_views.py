"""Single items of an index, and thumbnails of their images, which the engine reads."""

import asyncio

import httpx
import pytest

from tests.server.indexes.gallery import GALLERY, MODEL, build
from tests.server.service import Service


@pytest.fixture
async def service(service: Service) -> Service:
    await service.register_model(MODEL)
    await build(service)
    return service


async def thumbnail(service: Service, id: str, headers: dict[str, str] | None = None, **query: int) -> httpx.Response:
    return await service.http.get(f"{GALLERY}/items/{id}/thumbnail", params=query, headers=headers)


class TestItems:
    async def test_an_item_has_its_metadata_and_whether_it_has_a_thumbnail(self, service: Service) -> None:
        found = await service.get(f"{GALLERY}/items/a/3")

        assert (found["id"], found["shard"], found["has_thumbnail"]) == ("a/3", None, True)
        assert (await service.get(f"{GALLERY}/items/a%2F3")) == found

    async def test_unknown_ones_are_not_found(self, service: Service) -> None:
        item = await service.http.get(f"{GALLERY}/items/nothing")
        index = await service.http.get("/v1/indexes/nothing/items/a/3")

        assert (item.status_code, item.json()["code"]) == (404, "no_such_item")
        assert (index.status_code, index.json()["code"]) == (404, "no_such_index")

    async def test_ids_have_a_limit(self, service: Service) -> None:
        assert (await service.http.get(f"{GALLERY}/items/{'x' * 513}")).status_code == 422


class TestThumbnails:
    async def test_a_jpeg_that_the_browser_keeps(self, service: Service) -> None:
        first = await thumbnail(service, "a/3")

        assert (first.content, first.headers["content-type"]) == (b"jpeg of 256", "image/jpeg")
        assert first.headers["cache-control"] == "private, max-age=60"
        again = await thumbnail(service, "a/3", {"If-None-Match": first.headers["etag"]})
        other = await thumbnail(service, "a/3", {"If-None-Match": first.headers["etag"]}, size=32)
        assert (again.status_code, again.content, other.content) == (304, b"", b"jpeg of 32")

    async def test_another_build_has_another_etag(self, service: Service) -> None:
        before = (await thumbnail(service, "a/3")).headers["etag"]

        await build(service, count=11)

        assert (await thumbnail(service, "a/3")).headers["etag"] != before

    async def test_the_reason_why_there_is_none(self, service: Service) -> None:
        refused = await thumbnail(service, "drawn")

        assert (refused.status_code, refused.json()["code"]) == (404, "no_thumbnail")
        assert "without an image" in refused.json()["detail"]

    @pytest.mark.parametrize("size", [0, 15, 1025])
    async def test_sizes_have_limits(self, service: Service, size: int) -> None:
        assert (await thumbnail(service, "a/3", size=size)).status_code == 422

    async def test_a_page_asks_for_all_at_once(self, service: Service) -> None:
        answers = await asyncio.gather(*(thumbnail(service, "a/3", size=16 + i) for i in range(50)))

        assert {answer.status_code for answer in answers} == {200}
