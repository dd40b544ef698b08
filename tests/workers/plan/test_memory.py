"""Hostile specs cost the planner's process, which runs beside the control plane, little memory and little time."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest
from tinyclip.addresses import ALLOW_PRIVATE
from tinyclip.schemas import Plan

from tests.workers import hostile_files as hostile
from tests.workers.hostile_files import END, MIB, header, member, pax, sparse
from tests.workers.plan_specs import Document, spec, write_data
from tests.workers.shards import png

MAX_MIB = 200
"""The memory that the process may have more than after its first plan, at any time; the promise is 256."""
MAX_SECONDS = 60.0


LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
runpy.run_module("tinyclip_workers.planner", run_name="__main__")
"""


class PlannerProcess:
    """The planner as the control plane runs it, with little memory."""

    def __init__(self) -> None:
        environment = {**os.environ, ALLOW_PRIVATE: "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", LIMITED]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._read() == {"ready": True}
        self.base_mib = 0.0

    def answer(self, document: Document) -> dict[str, Any]:
        self.ask({"id": "1", "spec": document})
        return self.lines()[-1]

    def ask(self, *questions: dict[str, Any]) -> None:
        cast(IO[str], self._process.stdin).write("".join(json.dumps(question) + "\n" for question in questions))
        cast(IO[str], self._process.stdin).flush()

    def lines(self) -> list[dict[str, Any]]:
        """Return the next lines up to an answer: those before it name the field that is being checked."""
        lines = [self._read()]
        while "doing" in lines[-1]:
            lines.append(self._read())
        return lines

    def cost(self, document: Document) -> tuple[dict[str, Any], float, float]:
        """Return the answer, the memory that the process had at the most, in MiB beyond `base_mib`, and the seconds."""
        started = time.monotonic()
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")  # resets VmHWM
        answer = self.answer(document)
        return answer, self.mib("VmHWM") - self.base_mib, time.monotonic() - started

    def close(self) -> None:
        """Let the process end. Raises AssertionError if it has written more than its answers."""
        rest, _ = self._process.communicate(timeout=60)
        assert (self._process.returncode, rest) == (0, "")

    def _read(self) -> dict[str, Any]:
        line = cast(IO[str], self._process.stdout).readline()
        assert line, "the planner's process has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def mib(self, field: str) -> float:
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def planner(data: Path) -> Iterator[PlannerProcess]:
    process = PlannerProcess()
    assert "plan" in process.answer(spec(data)), "what a valid plan imports is not part of an attack"
    process.base_mib = process.mib("VmRSS")
    yield process
    process.close()


def test_each_line_has_one_line_of_an_answer_and_nothing_else(planner: PlannerProcess, data: Path) -> None:
    bad = {**spec(data), "batch_size": 7, "resources": {"workers": 2}}

    planner.ask({"id": "a", "spec": spec(data)}, {"id": "b", "spec": bad})

    *doing, first = planner.lines()
    second = planner.lines()[-1]
    assert [line["doing"]["pointer"] for line in doing][:2] == ["/teacher/model", "/data/train/shards"]
    assert {line["id"] for line in [*doing, first]} == {"a"}
    assert Plan.model_validate(first["plan"]).steps > 30
    assert (second["id"], second["errors"][0]["pointer"], second["errors"][0]["value"]) == ("b", "/batch_size", 7)


PAIR = member("a.txt", b"a red square") + member("a.png", png((200, 10, 10)))

Attack = Callable[[Path], str]

SHARDS: dict[str, Attack] = {
    "a PAX header of 300 MiB": lambda f: hostile.with_hole(f / "a.tar", PAIR + header("x", 300 * MIB, b"x"), 300 * MIB),
    "a long name of 300 MiB": lambda f: hostile.with_hole(f / "a.tar", PAIR + header("x", 300 * MIB, b"L"), 300 * MIB),
    "a global header of 300 MiB": lambda f: hostile.with_hole(f / "a.tar", PAIR + header("x", 300 * MIB, b"g"), 300 * MIB),
    "a file of 300 MiB": lambda f: hostile.with_hole(f / "a.tar", PAIR + header("b.png", 300 * MIB), 300 * MIB),
    "a file of 8 EiB": lambda f: hostile.with_hole(f / "a.tar", PAIR + header("b.png", 1 << 63), MIB),
    "files of 60 MiB": lambda f: hostile.with_hole(f / "a.tar", PAIR + header("b.png", 60 * MIB), 60 * MIB),
    "a sparse map without end": lambda f: _file(
        f, PAIR + sparse("b.png", packed=0, size=1, extended=True) + (bytes(504) + b"\1" + bytes(7)) * 20_000
    ),
    "a sparse file that unpacks to 250 MiB": lambda f: _file(f, PAIR + sparse("b.png", packed=0, size=250 * MIB) + END),
    "a sparse file of 8 EiB": lambda f: _file(f, PAIR + sparse("b.png", packed=1 << 63, size=1)),
    "a chain of PAX headers": lambda f: _file(f, PAIR + pax({"comment": "x"}) * 20_000 + member("b.txt", b"a cat") + END),
    "global headers with other keys": lambda f: _file(f, b"".join(_global(n) for n in range(40)) + PAIR + END),
    "a bomb": lambda f: hostile.zero_bomb(f / "a.tar.gz", PAIR + header("b.png", 1 << 32), 300 * MIB),
    "250 MiB of texts": lambda f: _file(f, hostile.text_tar(500, MIB // 2)),
    "one sample of 5,000 files": lambda f: _file(f, b"".join(member(f"a.{n}", b"x" * 9000) for n in range(5000)) + END),
    "many small samples": lambda f: _file(f, b"".join(hostile.many_members(100_000)) + END),
    "braces": lambda f: f"{f}/{{0..2000000}}.tar",
    "braces at the limit": lambda f: "/nowhere/shards-{000000..499999}.tar",
    "products of braces": lambda f: f"{f}/{{a..z}}{{a..z}}{{0..99999}}.tar",
    "braces in braces at the limit": lambda f: "/nowhere/{{0..499998},a}.tar",
    "braces without end": lambda f: f"{f}/" + "{" * 5000 + "}" * 5000,
    "a long number": lambda f: f"{f}/{{0..{'9' * 5000}}}.tar",
    "padded numbers": lambda f: f"{f}/{{{'0' * 5000}1..99999}}.tar",
    "a device": lambda f: "/dev/zero",
}


def _file(folder: Path, data: bytes) -> str:
    (folder / "a.tar").write_bytes(data)
    return str(folder / "a.tar")


def _global(number: int) -> bytes:
    block = bytearray(pax({f"key{number}": "x" * 1_000_000}))
    block[156:157] = b"g"
    return hostile.checked(block[:512]) + bytes(block[512:])


LONG = ("braces at the limit", "braces in braces at the limit")
"""They take half of the time of all; a hundred thousand shards are planned in any case."""


@pytest.mark.parametrize(
    "attack", [pytest.param(SHARDS[name], id=name, marks=[pytest.mark.long] * (name in LONG)) for name in SHARDS]
)
def test_hostile_shards_take_little_memory_and_time(planner: PlannerProcess, data: Path, tmp_path: Path, attack: Attack) -> None:
    document = spec(data)
    train = {"shards": attack(tmp_path), "image_key": ["png"]}
    document["data"]["train"] = train
    document["evaluation"]["tasks"] = [{"name": "words", "kind": "retrieval", **train}]

    answer, mib, seconds = planner.cost(document)

    assert answer.keys() <= {"id", "plan", "errors"}
    assert mib < MAX_MIB
    assert seconds < MAX_SECONDS


@pytest.mark.parametrize("field", ["classes", "templates"])
@pytest.mark.parametrize("kind", ["a device", "a pipe", "a large file", "a folder", "nested JSON", "other JSON", "other data"])
def test_hostile_lists_are_refused_at_their_field(
    planner: PlannerProcess, data: Path, tmp_path: Path, field: str, kind: str
) -> None:
    path = tmp_path / "lines"
    match kind:
        case "a device":
            path = Path("/dev/zero")
        case "a pipe":
            os.mkfifo(path)
        case "a large file":
            hostile.with_hole(path, b"cat\n", 600 * MIB)
        case "a folder":
            path.mkdir()
        case "nested JSON":
            path.write_text("[" * 100_000)
        case "other JSON":
            path.write_text('[{"name": null}]')
        case "other data":
            path.write_bytes(b"secret\xff")
    document = spec(data)
    document["evaluation"]["tasks"][0][field] = str(path)

    answer, mib, seconds = planner.cost(document)

    assert [error["pointer"] for error in answer["errors"]] == [f"/evaluation/tasks/0/{field}"]
    assert "secret" not in json.dumps(answer)
    assert mib < MAX_MIB
    assert seconds < 20


def test_an_endless_http_response_is_cut_off(planner: PlannerProcess, data: Path) -> None:
    with hostile.server(hostile.endless) as address:
        document = spec(data)
        document["evaluation"]["tasks"][0]["classes"] = f"{address}/classes.txt"
        document["evaluation"]["tasks"][1]["shards"] = [f"{address}/a.tar", f"{address}/b-*.tar"]

        answer, mib, seconds = planner.cost(document)

    assert {"/evaluation/tasks/0/classes", "/evaluation/tasks/1/shards"} <= {error["pointer"] for error in answer["errors"]}
    assert mib < MAX_MIB
    assert seconds < MAX_SECONDS


def test_the_content_of_a_list_is_not_quoted(planner: PlannerProcess, data: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0\nnobody:x:1:1\nroot:x:0:0\n")
    document = spec(data)
    document["evaluation"]["tasks"][0] |= {"templates": str(tmp_path / "passwd"), "classes": str(tmp_path / "passwd")}

    answer = planner.answer(document)

    assert {"/evaluation/tasks/0/templates", "/evaluation/tasks/0/classes"} <= {error["pointer"] for error in answer["errors"]}
    assert "root:x" not in json.dumps(answer)


def test_large_images_are_not_decoded(planner: PlannerProcess, data: Path, tmp_path: Path) -> None:
    large = png((10, 200, 10), size=8000)  # 64 million pixels in some 200 kB
    document = spec(data)
    pairs = b"".join(member(f"{n}.png", large) + member(f"{n}.txt", f"caption {n}".encode()) for n in range(8))
    document["data"]["train"] = {"shards": _file(tmp_path, pairs + END), "image_key": ["png"]}
    document["evaluation"]["tasks"] = []

    answer, mib, _ = planner.cost(document)

    assert "plan" in answer
    assert mib < MAX_MIB


def test_a_hundred_thousand_shards_are_planned(planner: PlannerProcess, data: Path, tmp_path: Path) -> None:
    pairs = [member(f"{n}.png", png((n, 9, 9))) + member(f"{n}.txt", f"a cat {n}".encode()) for n in range(20)]
    (tmp_path / "a.tar").write_bytes(b"".join(pairs) + END)
    for number in range(30):
        os.link(tmp_path / "a.tar", tmp_path / f"{number:02d}.tar")
    document = spec(data)
    shards = [f"{tmp_path}/{{00..29}}.tar", *[f"{tmp_path}/{{00..29}}.tar"] * 3999]
    document["data"]["train"] = {"shards": shards, "image_key": ["png"], "samples": 1_000_000}
    document["evaluation"]["tasks"] = []

    answer, mib, seconds = planner.cost(document)

    assert "plan" in answer, answer
    assert mib < MAX_MIB
    assert seconds < MAX_SECONDS
