"""Make a version of a model that came from elsewhere: `python -m tinyclip_workers.importing.convert`, one process a file.

One JSON line each way. A question comes in on stdin, `{"source", "called", "scratch", "limit", "seconds", "pointer", "options"}`.
The answer is `{"errors": […]}`, and that is all, or `{"checked": {…}}`: the file was read and understood, nothing is written yet.
Then comes the place, `{"artifacts", "name", "version"}`, and at last `{"document": …}` (the version is whole) or `{"failed": …}`.

The process ends by itself when stdin ends before the place came, and after `seconds` whatever it does.
"""

import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from tinyclip.schemas import JSON, FieldError, Layout, ModelVersion, StudentSummary
from tinyclip.schemas.artifacts import model_version
from tinyclip.schemas.imports import ImportOptions
from torch import Tensor

from tinyclip_workers.importing.files import ImportRefused, SourceFile, read_source
from tinyclip_workers.importing.layout import (
    AUTO_ORIGINAL,
    expect_auto_preset,
    expect_shapes,
    find_layout,
    origin_config,
    quick_gelu,
    size_warnings,
)
from tinyclip_workers.importing.names import UnknownNames, open_clip_names, settle_gone_branches
from tinyclip_workers.model.architecture import is_uniform, summarize
from tinyclip_workers.model.folders import CONFIG_FILE, PREPROCESS_FILE
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD, Color
from tinyclip_workers.model.presets import AUTO_PRESETS, PRESETS
from tinyclip_workers.runtime.json_lines import take_stdout, write_answer
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.versions.model_card import import_card
from tinyclip_workers.versions.writer import code_versions, json_bytes, model_files, version_document, write_version


@dataclass(frozen=True)
class Imported:
    """A model that was read, in our names and types, and where it comes from."""

    summary: StudentSummary
    state: dict[str, Tensor]
    """fp32, under open_clip's names, exactly the tensors of the layout."""
    image_mean: Color
    image_std: Color
    lineage: JSON
    original: Layout | None
    """What a pruned model was pruned from, if that is known."""


def main() -> None:
    """Answer one question. A fault of ours ends the process with its traceback; the control plane sees that."""
    answers = take_stdout()
    question = json.loads(sys.stdin.readline())
    signal.alarm(int(question["seconds"]))
    try:
        found = read_model(question)
    except ImportRefused as error:
        refused = FieldError(pointer=error.pointer, value=error.value, message=error.message)
        write_answer(answers, {"errors": [refused.model_dump(mode="json")]})
        return
    write_answer(answers, {"checked": found.summary.model_dump(mode="json")})
    line = sys.stdin.readline()
    if not line:
        return
    place = json.loads(line)
    try:
        document = write_import(Store(place["artifacts"]), place["name"], place["version"], found)
    except OSError as error:
        write_answer(answers, {"failed": str(error)})
        return
    write_answer(answers, {"document": document.model_dump(mode="json")})


def read_model(question: JSON) -> Imported:
    """Read, name, shape and check a model; writes only into `scratch`. Raises ImportRefused."""
    options = ImportOptions.model_validate(question["options"])
    source = read_source(
        question["source"], Path(question["scratch"]), called=question["called"], limit=question["limit"],
        pointer=question["pointer"],
    )
    try:
        return _understood(source, options, None if question["called"] else question["source"])
    except UnknownNames as error:
        raise ImportRefused(question["pointer"], source.file, str(error)) from error
    except ImportRefused as error:
        if error.pointer != "/file":
            raise
        raise ImportRefused(question["pointer"], source.file, error.message) from error


def write_import(store: Store, name: str, version: int, found: Imported) -> ModelVersion:
    """Write the version's folder, its document last. Raises OSError; FileExistsError where a version is already."""
    folder = model_version(name, version)
    if store.exists(f"{folder}/model.json"):
        raise FileExistsError(f"{store.uri(folder)} holds a version already")
    document = version_document(name, version, found.summary, lineage=found.lineage)
    weights = safetensors.torch.save(found.state, {"format": "pt"})
    files = {
        **model_files(found.summary.layout, weights, found.image_mean, found.image_std, found.original),
        "evaluation.json": json_bytes({}),
        "README.md": import_card(document, found.summary).encode(),
    }
    return write_version(store, folder, document, files)


def _understood(source: SourceFile, options: ImportOptions, uri: str | None) -> Imported:
    state, official, warnings = open_clip_names(source.state)
    layout = find_layout(_shapes(state), source.configs, options, official=official)
    activation, told_by = quick_gelu(layout, source.configs, options, official=official)
    layout = layout.model_copy(update={"quick_gelu": activation})
    auto = options.preset is not None and options.preset in AUTO_PRESETS
    if auto and options.preset:
        expect_auto_preset(layout, options.preset)
    settle_gone_branches(state, layout)
    expect_shapes(_shapes(state), layout, options)
    summary = summarize(layout)
    if auto and options.preset:
        warnings += size_warnings(summary, options.preset)
    mean, std = _colors(source, options)
    made = {
        "file": source.file, "source": uri, "bytes": source.bytes, "sha256": source.sha256,
        "names": "the published program's" if official else "open_clip's", "wrapper": source.wrapper,
        "preset": options.preset, "origin": options.origin, "quick_gelu_told_by": told_by,
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()}), "warnings": warnings,
    }  # fmt: skip
    original = PRESETS[AUTO_ORIGINAL] if auto and not is_uniform(layout) else None
    return Imported(summary, _settled(state), mean, std, {"import": made, "code": code_versions()}, original)


def _settled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """All values in fp32, each tensor in memory of its own. Raises ImportRefused for one that is not a number."""
    settled = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor = tensor.float()
            if not bool(torch.isfinite(tensor).all()):
                raise ImportRefused("/file", None, f"has values in {name} that are not finite; take an earlier checkpoint")
        settled[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return settled


def _colors(source: SourceFile, options: ImportOptions) -> tuple[Color, Color]:
    """Mean and deviation of the pictures: the directory's, the origin's, or CLIP's own."""
    told: JSON = source.configs.get(PREPROCESS_FILE) or source.configs.get(CONFIG_FILE, {}).get("preprocess_cfg") or {}
    if not told and options.origin is not None:
        told = origin_config(options.origin)
    colors = []
    for key, usual in (("mean", OPENAI_MEAN), ("std", OPENAI_STD)):
        value = told.get(key) or usual
        if not isinstance(value, list | tuple) or len(value) != 3:
            raise ImportRefused("/file", None, f"has {key} {value!r} in its preprocessing; three numbers are needed")
        colors.append((float(value[0]), float(value[1]), float(value[2])))
    return colors[0], colors[1]


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


if __name__ == "__main__":
    main()
