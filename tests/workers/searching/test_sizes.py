"""Searches for sizes in a simulated world whose optimum is known."""

import pytest
from tinyclip.artifacts.searches import SearchRecord
from tinyclip.schemas import JobSpec
from tinyclip.schemas.jobs import JobState
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.searching import Cost, advise
from tinyclip_workers.searching.sizes import SMALLEST, Shape, Size, largest_scale

from tests.workers.searching.world import RESNET, STEPS, TEACHER_VALUE, VIT, World, latency, new_record, post, run, step

KEEP = {"task": "val", "keep": 0.95}
BOTH = frozenset(("image", "text"))
IMAGE = frozenset(("image",))
SHAPES = [Shape(balance, depth, 1.0) for balance in (-0.5, 0.0, 0.5, 1.0) for depth in (1.0, 0.667, 0.5, 0.333)]


def params(layout):
    summary = summarize(layout)
    return summary.image_params + summary.text_params


def shapes_of(towers):
    return SHAPES if len(towers) == 2 else [shape for shape in SHAPES if shape.balance == 0]


def best_within(world, cost, limit, towers):
    """Return the best quality of any size within a limit, trained for whole length only."""
    found = []
    for shape in shapes_of(towers):
        scale = largest_scale(lambda scale, shape=shape: cost(Size.of(shape, scale, VIT, towers).layout(VIT)), limit)
        found += [world.quality(Size.of(shape, scale, VIT, towers).layout(VIT), STEPS)] if scale is not None else []
    return max(found)


def smallest_that_keeps(world, cost, value, towers):
    """Return the smallest cost of any size that reaches a quality."""
    found = []
    for shape in shapes_of(towers):
        layouts = [Size.of(shape, SMALLEST * 1.03**step, VIT, towers).layout(VIT) for step in range(156)]
        enough = [layout for layout in layouts if world.quality(layout, 1.3 * STEPS) >= value]
        found += [cost(enough[0])] if enough else []
    return min(found)


def image_ms(layout):
    return latency(layout, Cost("latency_ms"))


class TestOptimum:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("limit", [1.0, 1.6])
    def test_of_quality_within_a_latency(self, limit, seed):
        world = World()

        record, advice = run(new_record(post(constraints=[{"latency_ms": {"max": limit}}], seed=seed)), world)

        found = record.trials[advice.finished.recommended.trial]
        assert image_ms(found.layout) <= limit
        assert found.quality["val"]["top1"] >= 0.98 * best_within(world, image_ms, limit, IMAGE)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_of_quality_within_a_number_of_parameters(self, seed):
        world = World()

        record, advice = run(new_record(post(constraints=[{"params": {"max": 1_200_000}}], seed=seed)), world)

        found = record.trials[advice.finished.recommended.trial]
        assert found.params <= 1_200_000
        assert found.quality["val"]["top1"] >= 0.98 * best_within(world, params, 1_200_000, BOTH)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("keep", [0.97, 0.95, 0.9])
    def test_of_the_latency_that_keeps_a_quality(self, keep, seed):
        world = World(noise=0.001)
        constraints = [{"task": "val", "keep": keep}, {"latency_ms": {"max": 4}}]

        record, advice = run(new_record(post(constraints=constraints, seed=seed, budget={"trials": 16})), world)

        found = record.trials[advice.finished.recommended.trial]
        assert found.quality["val"]["top1"] >= keep * TEACHER_VALUE
        assert image_ms(found.layout) <= 1.2 * smallest_that_keeps(world, image_ms, keep * TEACHER_VALUE, IMAGE)

    def test_of_the_parameters_that_keep_a_quality(self):
        world = World(noise=0.001)

        record, advice = run(new_record(post(constraints=[KEEP], minimize="params", budget={"trials": 16})), world)

        found = record.trials[advice.finished.recommended.trial]
        assert found.params <= 1.2 * smallest_that_keeps(world, params, 0.95 * TEACHER_VALUE, BOTH)


class TestChain:
    def test_each_size_is_cut_out_of_a_larger_student(self):
        record, _ = run(new_record(post(constraints=[KEEP, {"latency_ms": {"max": 3}}])), World())

        first, *later = record.trials
        assert first.spec["stages"][0].get("inherit_from") is None
        for trial in later:
            if trial.settings["from"] is None:  # blocks are removed from whole towers only
                assert sum(trial.settings["size"]["image_layers"]) < sum(first.settings["size"]["image_layers"])
                continue
            parent = record.trials[trial.settings["from"]]
            assert trial.spec["stages"][0]["inherit_from"] == f"registry:pets@{parent.number + 1}"
            if trial.settings.get("continues") is None:
                assert Size.from_json(trial.settings["size"]).fits_into(Size.from_json(parent.settings["size"]))

    def test_rungs_grow_to_the_length_of_the_spec(self):
        record, _ = run(new_record(post(constraints=[KEEP, {"latency_ms": {"max": 3}}])), World())

        lengths = {trial.rung: trial.spec["stages"][-1]["train"]["steps"] for trial in record.trials}
        assert lengths == {0: STEPS // 4, 1: STEPS // 2, 2: STEPS}
        assert {trial.spec["optimizer"]["warmup_steps"] for trial in record.trials if trial.rung == 0} == {5}

    def test_a_longer_rung_continues_its_own_student(self):
        record, _ = run(new_record(post(constraints=[KEEP, {"latency_ms": {"max": 3}}])), World())

        promoted = [trial for trial in record.trials if trial.settings.get("continues") is not None]
        assert promoted
        for trial in promoted:
            (stage,) = trial.spec["stages"]
            assert (stage["inherit"], stage["student"], stage["prune"]) == ("manual", {}, None)
            assert record.trials[trial.settings["continues"]].rung < trial.rung

    def test_towers_with_shares_of_their_own_are_cut_in_two_stages(self):
        record, _ = run(new_record(post(constraints=[{"params": {"max": 1_200_000}}])), World())

        text, image = record.trials[0].spec["stages"]
        assert (text["prune"]["towers"], text["train"]) == (["text"], {"steps": 1})
        assert image["prune"]["towers"] == ["image"]

    def test_a_tower_that_no_constraint_is_of_stays_whole(self):
        record, _ = run(new_record(post(constraints=[{"latency_ms": {"max": 2}}])), World())

        assert {trial.settings["size"]["text"] for trial in record.trials} == {1.0}

    def test_units_are_selected_by_their_latency(self):
        record, _ = step(new_record(post(constraints=[{"latency_ms": {"max": 2}}])), World())

        prune = record.trials[0].spec["stages"][0]["prune"]
        assert prune["target"]["latency_ms"] == pytest.approx(image_ms(record.trials[0].layout), rel=0.01)
        assert (prune["target"]["engine"], prune["target"]["tower"]) == ("torch", "image")

    def test_depth_is_selected_before(self):
        record, _ = run(new_record(post(constraints=[{"latency_ms": {"max": 2}}])), World())

        shallow = [trial.spec["stages"][0]["prune"] for trial in record.trials if trial.settings["phase"] == "shape"]
        assert {"image": 4} in [prune.get("layers") for prune in shallow]

    @pytest.mark.parametrize(("limit", "blocks"), [(2, 6), (0.5, 1)])
    def test_a_low_latency_is_met_by_fewer_blocks(self, limit, blocks):
        record, advice = run(new_record(post(constraints=[{"latency_ms": {"max": limit}}])), World())

        assert record.trials[0].settings["size"]["image_layers"] == [blocks]
        assert image_ms(record.trials[advice.finished.recommended.trial].layout) <= limit

    def test_students_of_a_resnet_have_widths_and_depths(self):
        record, advice = run(new_record(post(constraints=[{"params": {"max": 2_000_000}}]), RESNET), ResNets())

        assert record.trials[advice.finished.recommended.trial].params <= 2_000_000
        first = JobSpec.model_validate(record.trials[0].spec)
        assert first.stages[0].inherit == "manual"
        assert first.stages[0].student.image.width % 2 == 0


class ResNets(World):
    def quality(self, layout, steps):
        return TEACHER_VALUE * (1 - 0.05 * (params(RESNET) / params(layout) - 1)) * (1 - 0.1 * 2 ** (-steps / STEPS))


class TestDeterminism:
    REQUESTS = (
        post(constraints=[KEEP, {"latency_ms": {"max": 3}}]),
        post(constraints=[{"params": {"max": 1_200_000}}], budget={"trials": 12, "at_once": 3}),
        post(constraints=[KEEP, {"params": {"max": 900_000}}], budget={"trials": 7, "at_once": 2}),
        post(constraints=[{"latency_ms": {"max": 2}}], vary={"optimizer.lr": {"min": 1e-4, "max": 1e-2, "log": True}}),
    )

    @pytest.mark.parametrize("request_", REQUESTS)
    def test_a_record_cut_anywhere_leads_to_the_same_trials(self, request_):
        world = World()
        whole, advice = run(new_record(request_), world)

        for count in range(len(whole.trials)):
            start = whole.model_copy(update={"trials": [_unmeasured(trial) for trial in whole.trials[:count]], "measured": []})
            again, same = run(SearchRecord.model_validate_json(start.model_dump_json()), world)

            assert again.model_dump()["trials"] == whole.model_dump()["trials"]
            assert same == advice

    def test_trials_that_run_are_waited_for(self):
        request = post(constraints=[KEEP, {"latency_ms": {"max": 3}}], budget={"trials": 12, "at_once": 2})
        record, _ = step(new_record(request), World())
        running = record.trials[0].model_copy(update={"state": JobState.RUNNING})

        waiting = advise(record.model_copy(update={"trials": [running, *record.trials[1:]]}), latency)

        assert (waiting.begin, waiting.measure, waiting.finished) == ([], None, None)
        assert "1 trial of rung 0" in waiting.message

    def test_no_more_begin_than_may_run_at_once(self):
        request = post(constraints=[KEEP, {"latency_ms": {"max": 3}}], budget={"trials": 12, "at_once": 3})
        record, advice = step(new_record(request), World())
        assert len(advice.begin) == 3
        running = record.trials[0].model_copy(update={"state": JobState.RUNNING})

        more = advise(record.model_copy(update={"trials": [running]}), latency)

        assert [trial.number for trial in more.begin] == [1, 2]


def _unmeasured(trial):
    return trial.model_copy(update={"measurements": []})


class TestBudget:
    @pytest.mark.parametrize("trials", [1, 2, 3, 4, 7, 9, 12, 20])
    @pytest.mark.parametrize("constraints", [[KEEP, {"latency_ms": {"max": 3}}], [{"params": {"max": 1_200_000}}]])
    def test_of_trials(self, constraints, trials):
        record, advice = run(new_record(post(constraints=constraints, budget={"trials": trials})), World())

        assert 1 <= len(record.trials) <= trials
        assert any(trial.spec["stages"][-1]["train"]["steps"] == STEPS for trial in record.trials)
        assert advice.finished.reason

    @pytest.mark.parametrize("hours", [0.05, 0.2, 0.4])
    def test_of_hours(self, hours):
        request = post(constraints=[KEEP, {"latency_ms": {"max": 3}}], budget={"trials": 40, "device_hours": hours})
        record, advice = run(new_record(request), World())

        assert sum(trial.device_hours for trial in record.trials) <= hours + 1e-9
        assert advice.finished is not None
        if hours > 0.1:
            assert record.trials[-1].rung == 2, "a whole training is reserved"

    def test_failed_trials_are_passed_over(self):
        world = World(fails=(1, 4, 9))
        record, advice = run(new_record(post(constraints=[KEEP, {"latency_ms": {"max": 3}}])), world)

        assert [trial.number for trial in record.trials if trial.state == JobState.FAILED] == [1, 4, 9]
        assert advice.finished.recommended is not None

    def test_a_search_whose_first_trials_fail_ends(self):
        record, advice = run(new_record(post(constraints=[KEEP, {"latency_ms": {"max": 3}}])), World(fails=range(99)))

        assert len(record.trials) == 3
        assert advice.finished.reason == "No trial has succeeded, so there is no student to recommend."


class TestSettings:
    def test_are_varied_with_shapes(self):
        request = post(
            constraints=[{"latency_ms": {"max": 1.5}}], vary={"optimizer.lr": [1e-4, 1e-3, 1e-2]}, budget={"trials": 24}
        )
        record, _ = run(new_record(request), World(settings={"optimizer.lr": 1e-3}))

        shapes = [trial for trial in record.trials if trial.settings["phase"] == "shape"]
        assert len({trial.spec["optimizer"]["lr"] for trial in shapes}) > 1
        promoted = [trial for trial in record.trials if trial.settings.get("continues") is not None]
        for trial in promoted:
            before = record.trials[trial.settings["continues"]]
            assert trial.spec["optimizer"]["lr"] == before.spec["optimizer"]["lr"]
