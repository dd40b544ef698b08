"""Every table of the command line fits the terminal, whatever names, captions and messages contain."""

import contextlib
import enum
import io
import re
import types
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from rich.cells import cell_len
from tinyclip import schemas
from tinyclip.cli.commands import cluster, deployments, evaluations, exports, indexes, label_sets, models, queries, tokens
from tinyclip.cli.display import console as consoles
from tinyclip.cli.display import datasets, hits, jobs, searches
from tinyclip.cli.display.hits import caption_of
from tinyclip.cli.display.hits_page import page_of
from tinyclip.cli.display.summary import comparison_tables, summary_tables
from tinyclip.schemas import Comparison, Hit, Job, Page, SearchResponse

HOSTILE = (
    "evil [/red] [b]:smile: |\x1b[31m\x07\r\u202etxt.exe <img onerror=x> 寿司" + "long-name-" * 40 + "\nsecond line\tend \ud800"
)
METRICS = {"top1": 0.65432, "top5": 0.98765, "samples": 123456789, "worst_classes": [
    {"class": HOSTILE, "samples": 12345, "top1": 0.1, "row": 0, "mistaken_for": [{"class": HOSTILE, "share": 0.5}] * 3},
], "per_class": [0.5], "by_size": {"32": {"top1": 0.5}}}  # fmt: skip
EXAMPLE = {"key": HOSTILE, "shard": HOSTILE, "detail": HOSTILE}
NAMED: dict[str, Any] = {
    "student": METRICS, "teacher": METRICS, "examples": [EXAMPLE], "lineage": {},
    "metrics": {"last": {"loss": 1.5}, "agreement": {"kl": 0.123456, "start_kl": 12.34567}},
    "metadata": {"caption": HOSTILE, HOSTILE: HOSTILE},
}  # fmt: skip


def hostile(kind: Any, name: str = "", depth: int = 0) -> Any:
    """Return a value of a type with long, hostile texts in it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return hostile(arguments[0], name, depth)
    if origin in (Union, types.UnionType):
        return hostile(next(each for each in arguments if each is not type(None)), name, depth)
    if origin is Literal:
        return arguments[0]
    if origin in (list, tuple, set, frozenset):
        return [hostile(arguments[0], name, depth)] * 3 if arguments and depth < 8 else []
    if origin is dict:
        return {HOSTILE: hostile(arguments[1], name, depth)}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return instance(kind, depth + 1)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    simple = {str: HOSTILE, int: 123_456_789, float: 123456.789, bool: True, datetime: datetime(2026, 1, 2, tzinfo=UTC)}
    return simple.get(kind, {} if kind is Any else HOSTILE)


def instance(model: type[BaseModel], depth: int = 0) -> Any:
    """Return an instance whose every field is hostile."""
    values = {}
    for name, field in model.model_fields.items():
        known = NAMED.get(name)
        fits = known is not None and not (name in ("student", "teacher") and "Scores" not in model.__name__)
        values[name] = known if fits else hostile(field.annotation, name, depth) if depth < 8 else None
    return model.model_construct(**values)


def page_of_type(model: type[BaseModel]) -> Any:
    return Page[Any].model_construct(items=[instance(model)] * 2, next_page_token="x" * 200)


def show_comparison() -> None:
    out = consoles.console()
    comparison = instance(Comparison)
    for model in comparison.models:
        model.evaluation = model.teacher_evaluation = {HOSTILE: METRICS, "val": METRICS}
    for table in comparison_tables(out, comparison):
        consoles.print_table(out, table)


def show_summary() -> None:
    out = consoles.console()
    for table in summary_tables(out, instance(Job), instance(schemas.StudentSummary)):
        consoles.print_table(out, table)


def zero_shot() -> Any:
    return schemas.ZeroShotResponse.model_construct(results=[[instance(schemas.LabelScore)] * 2], errors=[])


def metrics() -> Any:
    points = [{"stage": 0, "step": step, "value": 1.0 / (step + 1)} for step in range(500)]
    return schemas.Metrics.model_validate({"series": {HOSTILE[:60]: points, "loss": points}})


TABLES: dict[str, Callable[[], object]] = {
    "jobs": lambda: jobs.show_jobs(page_of_type(Job)),
    "a job": lambda: jobs.show_job(instance(Job)),
    "a plan": lambda: jobs.show_plan(instance(schemas.Plan)),
    "searches": lambda: searches.show_searches(page_of_type(schemas.Search)),
    "a search": lambda: searches.show_search(instance(schemas.Search)),
    "a plan of a search": lambda: searches.show_plan(instance(schemas.SearchPlan)),
    "an event of a search": lambda: searches.show_event(instance(schemas.SearchEvent)),
    "metrics": lambda: jobs.show_metrics(metrics()),
    "checkpoints": lambda: jobs.show_checkpoints(page_of_type(schemas.Checkpoint)),
    "events": lambda: jobs.show_events(page_of_type(schemas.Event)),
    "log lines": lambda: jobs.show_log_lines(page_of_type(schemas.LogLine)),
    "a job's models": show_summary,
    "a comparison": show_comparison,
    "data sets": lambda: datasets.show_datasets(page_of_type(schemas.Dataset)),
    "a version of a data set": lambda: datasets.show_version(instance(schemas.DatasetVersion)),
    "samples": lambda: datasets.show_samples(page_of_type(schemas.DatasetSample)),
    "reinforcements": lambda: datasets.show_reinforcements(page_of_type(schemas.Reinforcement)),
    "a report": lambda: datasets.show_report(instance(schemas.DatasetVersion), instance(schemas.DatasetReport)),
    "the cluster": lambda: cluster._show(instance(schemas.Cluster)),
    "traffic": lambda: deployments._show_traffic(instance(schemas.Traffic)),
    "deployments": lambda: deployments._show_page(page_of_type(schemas.Deployment)),
    "an evaluation": lambda: evaluations._show(instance(schemas.Evaluation)),
    "exports": lambda: exports._show([instance(schemas.Export)] * 2),
    "indexes": lambda: indexes._show_page(page_of_type(schemas.Index)),
    "label sets": lambda: label_sets._show_page(page_of_type(schemas.LabelSetSummary)),
    "models": lambda: models._show_models(page_of_type(schemas.Model)),
    "a version of a model": lambda: models._show_version(instance(schemas.ModelVersion)),
    "labels": lambda: queries._show_labels([HOSTILE], zero_shot()),
    "hits": lambda: hits.show_hits(instance(SearchResponse)),
    "hits with all metadata": lambda: hits.show_whole_hits(instance(SearchResponse)),
    "tokens": lambda: tokens._show_page(page_of_type(schemas.Token)),
}


class Screen(io.TextIOWrapper):
    """A terminal without colours."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="strict", newline="")

    def isatty(self) -> bool:
        return True


def lines_on_terminal(show: Callable[[], object], width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that a terminal of this width shows."""
    screen = Screen()
    for name, value in (("TERM", "dumb"), ("COLUMNS", str(width)), ("LINES", "30")):
        monkeypatch.setenv(name, value)
    with contextlib.redirect_stdout(screen):
        show()
        assert consoles.console().is_terminal
    screen.flush()
    return screen.buffer.getvalue().decode().split("\n")  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", TABLES)
def test_it_fits(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_on_terminal(TABLES[name], width, monkeypatch)

    assert len(lines) > 1
    assert [line for line in lines if cell_len(line) > width] == []
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", "".join(lines))
    assert "😄" not in "".join(lines)


@pytest.mark.parametrize("name", TABLES)
def test_without_a_terminal_a_row_is_a_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    TABLES[name]()

    out = capsys.readouterr().out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", out)
    rows = [line for line in out.split("\n") if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


class TestWholeCells:
    def test_ids_are_not_wrapped_while_names_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        job = instance(Job)
        job.id = "job_abcdefghijkmnpqr"

        page = Page[Any].model_construct(items=[job], next_page_token=None)

        assert any("job_abcdefghijkmnpqr " in line for line in lines_on_terminal(lambda: jobs.show_jobs(page), 80, monkeypatch))


class TestHits:
    def test_a_line_for_each_even_without_a_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        metadata = {"key": "k", "text": "a very long caption " * 20}
        many = [Hit(id=f"shards/{'x' * 60}/{n}", score=-0.123, metadata=metadata) for n in range(1000)]

        hits.show_hits(SearchResponse(hits=many, model="m@1"))

        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1002
        assert max(map(cell_len, lines)) <= 100
        assert "…" in lines[-1]

    @pytest.mark.parametrize(
        ("metadata", "caption"),
        [
            ({"title": "t", "caption": "c"}, "c"),
            ({"key": "k", "shard": "s", "year": 3, "note": "n"}, "n"),
            ({"captions": ["first", "second"]}, "first"),
            ({"caption": " ", "txt": "t"}, "t"),
            ({"key": "k", "shard": "s", "caption": 3}, ""),
            ({}, ""),
        ],
    )
    def test_the_caption(self, metadata: dict[str, Any], caption: str) -> None:
        assert caption_of(metadata) == caption

    def test_a_page_escapes_everything(self) -> None:
        attack = "\"><img src=x onerror=alert(1)>'\u202e"
        hit = Hit(id=attack, score=0.5, metadata={"caption": attack, attack: {attack: [attack]}})

        page = page_of(attack, [hit, hit], {attack: b"\xff\xd8"})
        without = page_of(attack, [hit], {attack: attack})

        for document in (page, without):
            assert "<img src=x" not in document
            assert "\u202e" not in document
            assert "script" not in document
        assert re.findall("<img [^>]*>", page)[0].startswith('<img src="data:image/jpeg;base64,/9g=" alt="&quot;&gt;')


def test_every_table_is_here() -> None:
    """Fail for a module with tables that no case of TABLES calls."""
    covered = {
        "deployments", "evaluations", "exports", "indexes", "label_sets", "models", "queries", "tokens", "datasets", "jobs",
        "summary", "hits", "cluster", "searches", "trials",
    }  # fmt: skip
    root = Path(consoles.__file__).parent.parent

    with_tables = {path.stem for path in root.rglob("*.py") if "new_table(" in path.read_text()} - {"console"}
    assert with_tables == covered
