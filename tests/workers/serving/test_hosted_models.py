"""Several models in one replica: a canary of the deployment's own, and others that are loaded when first asked for."""

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

from tests.workers.student_server import Served, serving
from tests.workers.students import encoded, random_image, write_student

LABELS = ["cat", "dog", "house"]


class Model:
    """What the list of models has to know of one."""

    def __init__(self, options: ServingOptions) -> None:
        if options.model.startswith("broken"):
            raise ValueError("it has no weights")
        self.name = options.model


class Draws:
    """Numbers from 0 to 1 in turn."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = iter(numbers)

    def __call__(self) -> float:
        return next(self._numbers)


def options_of(**changes: Any) -> ServingOptions:
    return ServingOptions.model_validate({
        "name": "demo", "model": "emoji@1", "model_uri": "/m/emoji/1", "artifacts": "/none", "engine": "torch", **changes,
    })  # fmt: skip


def hosted(*draws: float) -> tuple[HostedModels, list[str]]:
    """And what was loaded, in order."""
    loaded: list[str] = []

    def load(options: ServingOptions) -> Any:
        loaded.append(options.model)
        return Model(options)

    return HostedModels(options_of(), load, Draws(*draws)), loaded


def wanted(canary: str | None = None, weight: float = 0.25, models: tuple[str, ...] = (), resident: int = 2) -> UserConfig:
    at = canary and {"model": canary, "model_uri": f"/m/{canary}", "weight": weight}
    return UserConfig.model_validate({"canary": at, "models": {name: f"/m/{name}" for name in models}, "resident": resident})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("emoji@1", "emoji@2", "other@1")):
        write_student(root / name, seed=seed)
    return root


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Served]:
    with serving(options_of(model_uri=str(root / "emoji@1"), artifacts=str(root))) as served:
        canary = {"model": "emoji@2", "model_uri": str(root / "emoji@2"), "weight": 0.5}
        config = {"canary": canary, "models": {name: str(root / name) for name in ("other@1", "broken@1")}}
        asyncio.run(served.replica.models.reconfigure(UserConfig.model_validate(config)))
        yield served


class TestCanary:
    async def test_answers_its_share(self) -> None:
        rng = np.random.default_rng(0)
        models, _ = hosted(*rng.random(4000))
        await models.reconfigure(wanted("emoji@2", weight=0.25))

        answered = [(await models.route(None)).name for _ in range(4000)]

        assert 900 < answered.count("emoji@2") < 1100
        assert set(answered) == {"emoji@1", "emoji@2"}

    @pytest.mark.parametrize("name", [None, "emoji", "demo"])
    async def test_stands_in_for_names_without_a_version(self, name: str | None) -> None:
        models, _ = hosted(0.1, 0.9)
        await models.reconfigure(wanted("emoji@2"))

        assert [(await models.route(name)).name for _ in range(2)] == ["emoji@2", "emoji@1"]

    async def test_a_named_version_is_the_one_that_answers(self) -> None:
        models, _ = hosted()
        await models.reconfigure(wanted("emoji@2"))

        assert (await models.route("emoji@1")).name == "emoji@1"
        assert (await models.route("emoji@2")).name == "emoji@2"
        assert (await models.get(None)).name == "emoji@1"  # where answers of two versions cannot be mixed

    async def test_another_weight_loads_nothing_again(self) -> None:
        models, loaded = hosted(0.5, 0.5)
        await models.reconfigure(wanted("emoji@2", weight=0.25))
        before = (await models.route(None)).name
        await models.reconfigure(wanted("emoji@2", weight=0.75))

        assert (before, (await models.route(None)).name) == ("emoji@1", "emoji@2")
        assert loaded == ["emoji@1", "emoji@2"]

    async def test_one_that_cannot_be_loaded_gets_no_queries(self) -> None:
        models, _ = hosted(0.0)
        await models.reconfigure(wanted("broken@2"))

        assert (await models.route(None)).name == "emoji@1"
        assert models.canary_state() == {"model": "broken@2", "weight": 0.25, "error": "it has no weights"}
        with pytest.raises(ProblemError, match="is not served here"):
            await models.get("broken@2")

    async def test_leaves_when_it_is_no_longer_wanted(self) -> None:
        models, _ = hosted(0.0)
        await models.reconfigure(wanted("emoji@2"))
        await models.reconfigure(wanted())

        assert models.canary_state() is None
        assert (await models.route(None)).name == "emoji@1"


class TestFurtherModels:
    async def test_are_loaded_when_first_asked_for_and_the_longest_unused_leaves(self) -> None:
        models, loaded = hosted()
        await models.reconfigure(wanted(models=("a@1", "b@1", "c@1"), resident=2))

        for name in ("a@1", "b@1", "a@1", "c@1", "a@1", "b@1"):
            assert (await models.get(name)).name == name

        assert loaded == ["emoji@1", "a@1", "b@1", "c@1", "b@1"]

    async def test_many_who_ask_at_once_wait_for_one_loading(self) -> None:
        models, loaded = hosted()
        await models.reconfigure(wanted(models=("a@1",)))

        answered = await asyncio.gather(*(models.get("a@1") for _ in range(20)))

        assert {model.name for model in answered} == {"a@1"}
        assert loaded == ["emoji@1", "a@1"]

    async def test_whoever_gives_up_leaves_the_loading_to_the_others(self) -> None:
        go, loaded = threading.Event(), []

        def load(options: ServingOptions) -> Any:
            if options.model != "emoji@1":
                loaded.append(options.model)
                assert go.wait(20)
            return Model(options)

        models = HostedModels(options_of(), load)
        await models.reconfigure(wanted(models=("a@1",)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(models.get("a@1"), 0.05)
        go.set()

        assert (await models.get("a@1")).name == "a@1"
        assert loaded == ["a@1"]

    async def test_a_failure_that_nobody_waits_for_any_more_is_no_error_of_the_loop(self) -> None:
        go, complaints = threading.Event(), []

        def load(options: ServingOptions) -> Any:
            assert options.model == "emoji@1" or go.wait(20)
            return Model(options)

        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))
        models = HostedModels(options_of(), load)
        await models.reconfigure(wanted(models=("broken@1",)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(models.get("broken@1"), 0.05)
        go.set()
        await asyncio.wait(models._loading.values())
        await asyncio.sleep(0)  # what is called at its end
        gc.collect()

        assert complaints == []

    async def test_a_name_without_version_is_enough_where_there_is_one(self) -> None:
        models, _ = hosted()
        await models.reconfigure(wanted(models=("a@1", "b@1", "b@2")))

        assert (await models.get("a")).name == "a@1"
        with pytest.raises(ProblemError, match="omit model or name one of emoji@1, a@1, b@1, b@2"):
            await models.get("b")

    async def test_one_that_cannot_be_loaded_harms_nobody_else(self) -> None:
        models, _ = hosted()
        await models.reconfigure(wanted(models=("broken@1", "a@1")))

        with pytest.raises(ProblemError, match="it has no weights") as refused:
            await models.get("broken@1")

        assert refused.value.problem.status == 503
        assert (await models.get("a@1")).name == "a@1"

    async def test_one_that_cannot_be_loaded_is_not_tried_at_every_query(self) -> None:
        now, loaded = [100.0], []

        def load(options: ServingOptions) -> Any:
            loaded.append(options.model)
            return Model(options)

        models = HostedModels(options_of(), load, clock=lambda: now[0])
        await models.reconfigure(wanted(models=("broken@1", "a@1"), resident=1))
        await models.get("a@1")
        told = []
        for seconds in (0.0, 12.5, 17.4, 0.2):
            now[0] += seconds
            with pytest.raises(ProblemError, match="broken@1 cannot be loaded: it has no weights") as refused:
                await models.get("broken@1")
            told.append(refused.value.headers["Retry-After"])

        assert (refused.value.problem.code, refused.value.problem.retryable) == ("model_unavailable", True)
        assert told == ["30", "18", "1", "30"]
        assert loaded == ["emoji@1", "a@1", "broken@1", "broken@1"]

    async def test_a_changed_deployment_tries_again_at_once(self) -> None:
        models, loaded = hosted()
        for _ in range(2):
            await models.reconfigure(wanted(models=("broken@1",)))
            for _ in range(3):
                with pytest.raises(ProblemError, match="it has no weights"):
                    await models.get("broken@1")

        assert loaded == ["emoji@1", "broken@1", "broken@1"]


class TestOverHttp:
    """Two real students: their embeddings differ."""

    @pytest.fixture
    def http(self, served: Served) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=served.endpoint, timeout=30, trust_env=False) as http:
            yield http

    def test_every_answer_says_who_gave_it(self, http: httpx.Client) -> None:
        answers = [http.post("/zero-shot", files={"image": encoded(random_image(0))}, data={"labels": LABELS}) for _ in range(40)]

        said = [answer.json()["model"] for answer in answers]
        assert set(said) == {"emoji@1", "emoji@2"}
        assert [answer.headers["x-tinyclip-model"] for answer in answers] == said
        by_model = {answer.json()["model"]: answer.json()["results"] for answer in answers}
        assert by_model["emoji@1"] != by_model["emoji@2"]
        assert all(answer.json()["results"] == by_model[answer.json()["model"]] for answer in answers)

    @pytest.mark.parametrize("model", ["emoji@1", "emoji@2", "other@1", "other"])
    def test_embeddings_are_those_of_the_model_that_is_named(self, http: httpx.Client, root: Path, model: str) -> None:
        answer = http.post("/embeddings", json={"input": "a cat", "model": model})

        version = model if "@" in model else f"{model}@1"
        [row] = load_engine(str(root / version), "torch").encode_text(["a cat"])
        assert answer.json()["model"] == version
        np.testing.assert_allclose(answer.json()["data"][0]["embedding"], row, atol=1e-5)

    def test_embeddings_are_never_mixed(self, http: httpx.Client) -> None:
        said = {http.post("/embeddings", json={"input": "a cat"}).json()["model"] for _ in range(30)}

        assert said == {"emoji@1"}

    def test_a_model_that_is_not_here(self, http: httpx.Client) -> None:
        answer = http.post("/zero-shot", files={"image": encoded(random_image(0))}, data={"labels": LABELS, "model": "nothing@1"})

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/model"
        assert "emoji@1, emoji@2, other@1" in answer.text

    def test_a_model_that_cannot_be_loaded_says_when_to_come_back(self, http: httpx.Client) -> None:
        answers = [http.post("/embeddings", json={"input": "a cat", "model": "broken@1"}) for _ in range(2)]

        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "model_unavailable")] * 2
        assert all(0 < int(answer.headers["Retry-After"]) <= 30 and answer.json()["retryable"] for answer in answers)

    def test_all_are_listed(self, http: httpx.Client) -> None:
        listed = [each["id"] for each in http.get("/v1/models").json()["data"]]

        assert listed == ["emoji@1", "emoji@2", "other@1", "broken@1", "demo"]
        assert http.get("/healthz").json()["canary"] == {"model": "emoji@2", "weight": 0.5, "error": None}
