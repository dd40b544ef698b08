"""Several models in one replica: the deployment's own, a canary, and further ones that are loaded on demand."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.serving.options import ServingOptions, UserConfig
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica.hosted_models import HostedModels

from tests.workers.student_server import Served, serving, serving_options
from tests.workers.students import encoded, random_image, write_student

LABELS = ["cat", "dog", "house"]


class FakeModel:
    """A served model with nothing but a name."""

    def __init__(self, options: ServingOptions) -> None:
        if options.model.startswith("broken"):
            raise ValueError("it has no weights")
        self.name = options.model


OPTIONS = serving_options(Path("/none"), model="emoji@1", model_uri="/m/emoji/1")


def hosted_models(*shares: float) -> tuple[HostedModels, list[str]]:
    """Return hosted models whose random shares are the given ones, and the list of loaded names."""
    loaded: list[str] = []

    def load(options: ServingOptions) -> Any:
        loaded.append(options.model)
        return FakeModel(options)

    return HostedModels(OPTIONS, load, iter(shares).__next__), loaded


def config(canary: str | None = None, weight: float = 0.25, models: tuple[str, ...] = (), resident: int = 2) -> UserConfig:
    canary_config = canary and {"model": canary, "model_uri": f"/m/{canary}", "weight": weight}
    further = {name: f"/m/{name}" for name in models}
    return UserConfig.model_validate({"canary": canary_config, "models": further, "resident": resident})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("emoji@1", "emoji@2", "other@1")):
        write_student(root / name, seed=seed)
    return root


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Served]:
    with serving(serving_options(root, model="emoji@1", model_uri=str(root / "emoji@1"))) as served:
        canary = {"model": "emoji@2", "model_uri": str(root / "emoji@2"), "weight": 0.5}
        user_config = {"canary": canary, "models": {name: str(root / name) for name in ("other@1", "broken@1")}}
        asyncio.run(served.replica.models.reconfigure(UserConfig.model_validate(user_config)))
        yield served


class TestCanary:
    async def test_gets_its_share_of_the_queries(self) -> None:
        rng = np.random.default_rng(0)
        models, _ = hosted_models(*rng.random(4000))
        await models.reconfigure(config("emoji@2", weight=0.25))

        routed = [(await models.route(None)).name for _ in range(4000)]

        assert 900 < routed.count("emoji@2") < 1100
        assert set(routed) == {"emoji@1", "emoji@2"}

    @pytest.mark.parametrize("name", [None, "emoji", "demo"])
    async def test_gets_queries_that_name_no_version(self, name: str | None) -> None:
        models, _ = hosted_models(0.1, 0.9)
        await models.reconfigure(config("emoji@2"))

        assert [(await models.route(name)).name for _ in range(2)] == ["emoji@2", "emoji@1"]

    async def test_a_named_version_answers(self) -> None:
        models, _ = hosted_models()
        await models.reconfigure(config("emoji@2"))

        assert (await models.route("emoji@1")).name == "emoji@1"
        assert (await models.route("emoji@2")).name == "emoji@2"
        assert (await models.get(None)).name == "emoji@1"  # embeddings of two versions cannot be mixed

    async def test_another_weight_does_not_reload_it(self) -> None:
        models, loaded = hosted_models(0.5, 0.5)
        await models.reconfigure(config("emoji@2", weight=0.25))
        before = (await models.route(None)).name
        await models.reconfigure(config("emoji@2", weight=0.75))

        assert (before, (await models.route(None)).name) == ("emoji@1", "emoji@2")
        assert loaded == ["emoji@1", "emoji@2"]

    async def test_gets_no_queries_if_it_cannot_be_loaded(self) -> None:
        models, _ = hosted_models(0.0)
        await models.reconfigure(config("broken@2"))

        assert (await models.route(None)).name == "emoji@1"
        assert models.canary_state() == {"model": "broken@2", "weight": 0.25, "error": "it has no weights"}
        with pytest.raises(ProblemError, match="is not served here"):
            await models.get("broken@2")

    async def test_is_removed_with_its_configuration(self) -> None:
        models, _ = hosted_models(0.0)
        await models.reconfigure(config("emoji@2"))
        await models.reconfigure(config())

        assert models.canary_state() is None
        assert (await models.route(None)).name == "emoji@1"


class TestFurtherModels:
    async def test_are_loaded_on_demand_and_the_least_recently_used_one_is_evicted(self) -> None:
        models, loaded = hosted_models()
        await models.reconfigure(config(models=("a@1", "b@1", "c@1"), resident=2))

        for name in ("a@1", "b@1", "a@1", "c@1", "a@1", "b@1"):
            assert (await models.get(name)).name == name

        assert loaded == ["emoji@1", "a@1", "b@1", "c@1", "b@1"]

    async def test_concurrent_queries_share_one_load(self) -> None:
        models, loaded = hosted_models()
        await models.reconfigure(config(models=("a@1",)))

        answered = await asyncio.gather(*(models.get("a@1") for _ in range(20)))

        assert {model.name for model in answered} == {"a@1"}
        assert loaded == ["emoji@1", "a@1"]

    async def test_a_load_continues_when_the_query_that_started_it_is_cancelled(self) -> None:
        unblocked, loaded = threading.Event(), []

        def load(options: ServingOptions) -> Any:
            if options.model != "emoji@1":
                loaded.append(options.model)
                assert unblocked.wait(20)
            return FakeModel(options)

        models = HostedModels(OPTIONS, load)
        await models.reconfigure(config(models=("a@1",)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(models.get("a@1"), 0.05)
        unblocked.set()

        assert (await models.get("a@1")).name == "a@1"
        assert loaded == ["a@1"]

    async def test_a_failed_load_without_waiting_queries_is_not_reported_to_the_event_loop(self) -> None:
        unblocked, errors = threading.Event(), []

        def load(options: ServingOptions) -> Any:
            assert options.model == "emoji@1" or unblocked.wait(20)
            return FakeModel(options)

        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["message"]))
        models = HostedModels(OPTIONS, load)
        await models.reconfigure(config(models=("broken@1",)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(models.get("broken@1"), 0.05)
        unblocked.set()
        await asyncio.wait(models._loading.values())
        await asyncio.sleep(0)  # for its callbacks
        gc.collect()

        assert errors == []

    async def test_a_name_without_a_version_is_enough_if_there_is_only_one(self) -> None:
        models, _ = hosted_models()
        await models.reconfigure(config(models=("a@1", "b@1", "b@2")))

        assert (await models.get("a")).name == "a@1"
        with pytest.raises(ProblemError, match="omit model or name one of emoji@1, a@1, b@1, b@2"):
            await models.get("b")

    async def test_a_failed_load_does_not_affect_other_models(self) -> None:
        models, _ = hosted_models()
        await models.reconfigure(config(models=("broken@1", "a@1")))

        with pytest.raises(ProblemError, match="it has no weights") as rejected:
            await models.get("broken@1")

        assert rejected.value.problem.status == 503
        assert (await models.get("a@1")).name == "a@1"

    async def test_a_failed_load_is_not_repeated_at_every_query(self) -> None:
        now, loaded = [100.0], []

        def load(options: ServingOptions) -> Any:
            loaded.append(options.model)
            return FakeModel(options)

        models = HostedModels(OPTIONS, load, clock=lambda: now[0])
        await models.reconfigure(config(models=("broken@1", "a@1"), resident=1))
        await models.get("a@1")
        retry_after = []
        for seconds in (0.0, 12.5, 17.4, 0.2):
            now[0] += seconds
            with pytest.raises(ProblemError, match="broken@1 cannot be loaded: it has no weights") as rejected:
                await models.get("broken@1")
            retry_after.append(rejected.value.headers["Retry-After"])

        assert (rejected.value.problem.code, rejected.value.problem.retryable) == ("model_unavailable", True)
        assert retry_after == ["30", "18", "1", "30"]
        assert loaded == ["emoji@1", "a@1", "broken@1", "broken@1"]

    async def test_a_new_configuration_loads_again_at_once(self) -> None:
        models, loaded = hosted_models()
        for _ in range(2):
            await models.reconfigure(config(models=("broken@1",)))
            for _ in range(3):
                with pytest.raises(ProblemError, match="it has no weights"):
                    await models.get("broken@1")

        assert loaded == ["emoji@1", "broken@1", "broken@1"]


class TestOverHttp:
    """Real students, whose embeddings differ."""

    @pytest.fixture
    def http(self, served: Served) -> Iterator[httpx.Client]:
        with served.client() as client:
            yield client

    def test_every_answer_names_its_model(self, http: httpx.Client) -> None:
        answers = [http.post("/zero-shot", files={"image": encoded(random_image(0))}, data={"labels": LABELS}) for _ in range(40)]

        models = [answer.json()["model"] for answer in answers]
        assert set(models) == {"emoji@1", "emoji@2"}
        assert [answer.headers["x-tinyclip-model"] for answer in answers] == models
        by_model = {answer.json()["model"]: answer.json()["results"] for answer in answers}
        assert by_model["emoji@1"] != by_model["emoji@2"]
        assert all(answer.json()["results"] == by_model[answer.json()["model"]] for answer in answers)

    @pytest.mark.parametrize("model", ["emoji@1", "emoji@2", "other@1", "other"])
    def test_embeddings_are_those_of_the_named_model(self, http: httpx.Client, root: Path, model: str) -> None:
        answer = http.post("/embeddings", json={"input": "a cat", "model": model})

        version = model if "@" in model else f"{model}@1"
        [row] = load_engine(str(root / version), "torch").encode_text(["a cat"])
        assert answer.json()["model"] == version
        np.testing.assert_allclose(answer.json()["data"][0]["embedding"], row, atol=1e-5)

    def test_the_canary_computes_no_embeddings(self, http: httpx.Client) -> None:
        models = {http.post("/embeddings", json={"input": "a cat"}).json()["model"] for _ in range(30)}

        assert models == {"emoji@1"}

    def test_an_unknown_model(self, http: httpx.Client) -> None:
        answer = http.post("/zero-shot", files={"image": encoded(random_image(0))}, data={"labels": LABELS, "model": "nothing@1"})

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/model"
        assert "emoji@1, emoji@2, other@1" in answer.text

    def test_a_model_that_cannot_be_loaded_is_503_with_retry_after(self, http: httpx.Client) -> None:
        answers = [http.post("/embeddings", json={"input": "a cat", "model": "broken@1"}) for _ in range(2)]

        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "model_unavailable")] * 2
        assert all(0 < int(answer.headers["Retry-After"]) <= 30 and answer.json()["retryable"] for answer in answers)

    def test_all_models_are_listed(self, http: httpx.Client) -> None:
        listed = [each["id"] for each in http.get("/v1/models").json()["data"]]

        assert listed == ["emoji@1", "emoji@2", "other@1", "broken@1", "demo"]
        assert http.get("/healthz").json()["canary"] == {"model": "emoji@2", "weight": 0.5, "error": None}
