"""Import a model as a registry version: `python -m tinyclip_workers.importing.convert`, one process per file.

The process exchanges one JSON document per line with the control plane:

1. It reads a request: `{"source", "upload_name", "scratch", "limit", "seconds", "pointer", "options"}`.
2. It answers `{"errors": […]}` and exits, or `{"checked": {…}}`: the file is valid and nothing has been written yet.
3. It reads the destination: `{"artifacts", "name", "version"}`.
4. It answers `{"document": …}` when the version is complete, or `{"failed": …}`.

Out of memory, the answer is `{"exhausted": true}`.

The process exits when stdin closes before step 3, and is terminated after `seconds` in any case.
"""

import json
import math
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from tinyclip.artifacts.paths import model_document, model_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON, FieldError, Layout, ModelVersion, StudentSummary
from tinyclip.schemas.imports import ImportOptions
from torch import Tensor

from tinyclip_workers.importing.layout_inference import (
    AUTO_ORIGINAL,
    expect_auto_preset,
    expect_shapes,
    find_layout,
    origin_config,
    resolve_quick_gelu,
    size_warnings,
)
from tinyclip_workers.importing.source_files import ImportRefused, SourceFile, read_source
from tinyclip_workers.importing.tensor_names import UnknownTensorNames, reduce_removed_branches, to_open_clip_names
from tinyclip_workers.model.files.folders import CONFIG_FILE, PREPROCESS_FILE
from tinyclip_workers.model.layouts import AUTO_PRESETS, PRESETS
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD, Color
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.model.tokenizers import TokenizerError, TokenizerSource, make_tokenizer, tokenizer_of_config
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.runtime.json_lines import take_stdout, write_answer
from tinyclip_workers.runtime.memory import is_out_of_memory
from tinyclip_workers.versions.lineage import code_versions
from tinyclip_workers.versions.model_card import import_card
from tinyclip_workers.versions.writer import json_bytes, model_files, version_document, write_version

TOKENIZED = ["a", "a photo of two dogs"]
"""Texts whose tokens a model with a tokenizer of its own must have."""


@dataclass(frozen=True)
class ImportedModel:
    """A model under open_clip's tensor names, with its origin."""

    summary: StudentSummary
    state: dict[str, Tensor]
    """Exactly the tensors of the layout, in fp32."""
    image_mean: Color
    image_std: Color
    lineage: JSON
    original: Layout | None
    """The layout that a pruned model was pruned from, if known."""
    tokenizer: TokenizerSource | None = None
    """None: CLIP's own."""


def main() -> None:
    """Handle one request. An internal error ends the process with a traceback, which the control plane reports."""
    answers = take_stdout()
    request = json.loads(sys.stdin.readline())
    signal.alarm(int(request["seconds"]))
    try:
        imported = read_model(request)
    except ImportRefused as error:
        refused = FieldError(pointer=error.pointer, value=error.value, message=error.message)
        write_answer(answers, {"errors": [refused.model_dump(mode="json")]})
        return
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        write_answer(answers, {"exhausted": True})
        return
    write_answer(answers, {"checked": imported.summary.model_dump(mode="json")})
    line = sys.stdin.readline()
    if not line:
        return
    destination = json.loads(line)
    try:
        document = write_import(open_own_store(destination["artifacts"]), destination["name"], destination["version"], imported)
    except OSError as error:
        write_answer(answers, {"failed": str(error)})
        return
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        write_answer(answers, {"exhausted": True})
        return
    write_answer(answers, {"document": document.model_dump(mode="json")})


def read_model(request: JSON) -> ImportedModel:
    """Read, convert and check a model; writes only into `scratch`. Raises ImportRefused."""
    options, upload_name, pointer = ImportOptions.model_validate(request["options"]), request["upload_name"], request["pointer"]
    source = read_source(
        request["source"], Path(request["scratch"]), upload_name=upload_name, limit=request["limit"], pointer=pointer
    )
    try:
        return _convert(source, options, None if upload_name else request["source"])
    except UnknownTensorNames as error:
        raise ImportRefused(pointer, source.file, str(error)) from error
    except ImportRefused as error:
        if error.pointer != "/file":
            raise
        raise ImportRefused(pointer, source.file, error.message) from error


def write_import(store: ArtifactsStore, name: str, version: int, imported: ImportedModel) -> ModelVersion:
    """Write the version's folder, its document last. Raises OSError, and FileExistsError if the version exists."""
    folder = model_version(name, version)
    if store.exists(model_document(name, version)):
        raise FileExistsError(f"{store.uri(folder)} already holds a version")
    document = version_document(name, version, imported.summary, lineage=imported.lineage, inherited_from=imported.original)
    weights = safetensors.torch.save(imported.state, {"format": "pt"})
    files = {
        **model_files(
            imported.summary.layout, weights, imported.image_mean, imported.image_std, imported.original, imported.tokenizer
        ),
        "evaluation.json": json_bytes({}),
        "README.md": import_card(document, imported.summary).encode(),
    }
    return write_version(store, folder, document, files)


def _convert(source: SourceFile, options: ImportOptions, uri: str | None) -> ImportedModel:
    state, official, warnings = to_open_clip_names(source.state)
    layout = find_layout(_shapes(state), source.configs, options, official=official)
    activation, activation_source = resolve_quick_gelu(layout, source.configs, options, official=official)
    layout = layout.model_copy(update={"quick_gelu": activation})
    auto = options.preset is not None and options.preset in AUTO_PRESETS
    if auto and options.preset:
        expect_auto_preset(layout, options.preset)
    reduce_removed_branches(state, layout)
    expect_shapes(_shapes(state), layout, options)
    summary = summarize(layout)
    if auto and options.preset:
        warnings += size_warnings(summary, options.preset)
    mean, std = _image_normalization(source, options)
    lineage = {
        "file": source.file, "source": uri, "bytes": source.bytes, "sha256": source.sha256,
        "names": "the official implementation's" if official else "open_clip's", "wrapper": source.wrapper,
        "preset": options.preset, "origin": options.origin, "quick_gelu_told_by": activation_source,
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()}), "warnings": warnings,
    }  # fmt: skip
    original = PRESETS[AUTO_ORIGINAL] if auto and not layout.is_uniform else None
    origin = {"import": lineage, "code": code_versions()}
    return ImportedModel(summary, _to_fp32(state), mean, std, origin, original, _tokenizer(source, layout))


def _tokenizer(source: SourceFile, layout: Layout) -> TokenizerSource | None:
    """Return the tokenizer of a directory; None for CLIP's own. Raises ImportRefused for one that cannot be used."""
    model_cfg = source.configs.get(CONFIG_FILE, {}).get("model_cfg")
    text_cfg = model_cfg.get("text_cfg") if isinstance(model_cfg, dict) else None
    try:
        tokenizer = TokenizerSource.from_files(source.tokenizer)
        if tokenizer is None and isinstance(text_cfg, dict):
            tokenizer = tokenizer_of_config(text_cfg, source.tokenizer, source.file)
        if tokenizer is None:
            return None
        tokens_BT = make_tokenizer(layout, tokenizer)(TOKENIZED)
    except TokenizerError as error:
        raise ImportRefused("/file", source.file, str(error)) from error
    if int(tokens_BT.max()) >= layout.vocab_size:
        message = f"has {layout.vocab_size:,} token embeddings, fewer than its tokenizer has tokens; add the files of its own one"
        raise ImportRefused("/file", source.file, message)
    return tokenizer


def _to_fp32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert all values to fp32, each tensor in its own memory. Raises ImportRefused for values that are not finite."""
    converted = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor = tensor.float()
            if not bool(torch.isfinite(tensor).all()):
                raise ImportRefused("/file", None, f"has values in {name} that are not finite; use an earlier checkpoint")
        converted[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return converted


def _image_normalization(source: SourceFile, options: ImportOptions) -> tuple[Color, Color]:
    """Return mean and standard deviation from the directory's configuration, else the origin's, else CLIP's own."""
    config = source.configs.get(PREPROCESS_FILE) or source.configs.get(CONFIG_FILE, {}).get("preprocess_cfg") or {}
    if not isinstance(config, dict):
        raise ImportRefused("/file", None, "has a preprocess_cfg that is not a JSON object; correct it")
    if not config and options.origin is not None:
        config = origin_config(options.origin)
    colors = []
    for key, default in (("mean", OPENAI_MEAN), ("std", OPENAI_STD)):
        value = config.get(key) or default
        numbers = isinstance(value, list | tuple) and all(type(each) in (int, float) and math.isfinite(each) for each in value)
        if not numbers or len(value) != 3:
            raise ImportRefused("/file", None, f"has a {key} in its preprocessing that is not three numbers; correct it")
        colors.append((float(value[0]), float(value[1]), float(value[2])))
    return colors[0], colors[1]


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


if __name__ == "__main__":
    main()
