"""Samples of a version, and thumbnails of them, which the engine reads."""

import httpx
import pytest

from tests.server.datasets.pairs import EMOJI, register
from tests.server.service import Service

SAMPLES = f"{EMOJI}/versions/1/samples"


@pytest.fixture
async def service(service: Service) -> Service:
    await register(service)
    return service


async def thumbnail(service: Service, key: str, headers: dict[str, str] | None = None, **query: int) -> httpx.Response:
    return await service.http.get(f"{SAMPLES}/{key}/thumbnail", params=query, headers=headers)


class TestSamples:
    async def test_pages_continue_where_the_one_before_ended(self, service: Service) -> None:
        numbers, token = [], {}
        for _ in range(3):
            page = (await service.http.get(SAMPLES, params={"page_size": 4, **token})).json()
            numbers.append([item["number"] for item in page["items"]])
            token = {"page_token": page["next_page_token"]}

        assert numbers == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert token == {"page_token": None}

    async def test_a_sample_has_its_place_its_captions_and_its_use(self, service: Service) -> None:
        [sample] = await service.items(SAMPLES, page_size=1)

        assert (sample["key"], sample["shard"], sample["offset"], sample["captions"]) == ("a/0", "/data/00.tar", 0, ["caption 0"])
        assert (sample["use"], sample["problem"], sample["unread"]) == ("training", None, None)

    async def test_those_of_one_use(self, service: Service) -> None:
        assert [each["number"] for each in await service.items(SAMPLES, use="unusable")] == [9]

    @pytest.mark.parametrize("query", [{"use": "best"}, {"page_token": "W10"}, {"page_size": 501}])
    async def test_invalid_parameters_are_refused(self, service: Service, query: dict[str, str]) -> None:
        assert (await service.http.get(SAMPLES, params=query)).status_code == 422

    async def test_a_missing_version_has_none(self, service: Service) -> None:
        assert (await service.http.get(f"{EMOJI}/versions/9/samples")).status_code == 404


class TestThumbnail:
    async def test_it_is_a_jpeg_that_may_be_kept(self, service: Service) -> None:
        response = await thumbnail(service, "a/3", number=3, size=64)

        assert (response.status_code, response.content) == (200, b"jpeg of 64")
        assert (response.headers["content-type"], response.headers["cache-control"]) == ("image/jpeg", "private, max-age=86400")

    async def test_it_is_not_sent_again(self, service: Service) -> None:
        first = await thumbnail(service, "a/3")

        again = await thumbnail(service, "a/3", {"If-None-Match": first.headers["etag"]})
        other = await thumbnail(service, "a/3", {"If-None-Match": first.headers["etag"]}, size=32)

        assert (again.status_code, again.content, other.status_code) == (304, b"", 200)

    async def test_a_missing_sample_is_not_found_with_the_reason(self, service: Service) -> None:
        response = await thumbnail(service, "b")

        assert (response.status_code, response.json()["code"]) == (404, "no_such_sample")
        assert response.json()["detail"] == "there is no sample b"

    async def test_a_store_that_fails_is_unavailable(self, service: Service) -> None:
        response = await thumbnail(service, "slow")

        assert (response.status_code, response.headers["retry-after"]) == (503, "5")

    @pytest.mark.parametrize("query", [{"size": 8}, {"size": 5000}, {"number": -1}])
    async def test_invalid_parameters_are_refused(self, service: Service, query: dict[str, int]) -> None:
        assert (await thumbnail(service, "a/3", **query)).status_code == 422
