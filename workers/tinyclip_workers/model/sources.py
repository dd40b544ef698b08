"""What the spec says about the teacher, as a model that is ready to be asked."""

import difflib

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from tinyclip.schemas.spec import TeacherSpec

from tinyclip_workers.model import hub
from tinyclip_workers.model.architecture import UnsupportedArchitecture, layout_of
from tinyclip_workers.model.folders import (
    LoadedModel,
    ModelSource,
    check_weights,
    config_layout,
    find_folder,
    load,
    make_tokenizer,
    with_colors,
)
from tinyclip_workers.model.weights import WeightsError

__all__ = ["LoadedModel", "TeacherError", "check_teacher", "find_teacher", "load_teacher", "make_tokenizer"]

LOCAL_DIR, HF_HUB, REGISTRY = "local-dir:", "hf-hub:", "registry:"


class TeacherError(ValueError):
    """A teacher that cannot be used: `pointer` into the spec, what was there, and what to do."""

    def __init__(self, pointer: str, value: object, message: str) -> None:
        super().__init__(f"{pointer}: {message}")
        self.pointer, self.value, self.message = pointer, value, message


def load_teacher(spec: TeacherSpec, at: str = "/teacher") -> LoadedModel:
    """The teacher with its weights, fp32 on the CPU, in evaluation mode; `at` is its place in the spec. Raises TeacherError."""
    source = find_teacher(spec, at)
    try:
        path = source.weights()
    except hub.HubError as error:
        raise TeacherError(f"{at}/model", spec.model, str(error)) from error
    pointer = f"{at}/pretrained" if spec.pretrained else f"{at}/model"
    try:
        return load(source, path)
    except (WeightsError, OSError, RuntimeError) as error:
        raise TeacherError(pointer, spec.pretrained or spec.model, str(error)) from error


def check_teacher(spec: TeacherSpec, at: str = "/teacher") -> ModelSource:
    """What a plan needs: the teacher found, its configuration read, and its weights there and of the right shapes.

    Weights are not read; those of a hub are asked for, not downloaded. Raises TeacherError.
    """
    source = find_teacher(spec, at)
    pointer, value = (f"{at}/pretrained", spec.pretrained) if spec.pretrained else (f"{at}/model", spec.model)
    try:
        tag = get_pretrained_cfg(spec.model.replace("/", "-"), spec.pretrained) if spec.pretrained else None
        if tag:
            hub.check_pretrained(tag, f"{spec.model} {spec.pretrained}")
        elif not spec.model.startswith(HF_HUB):
            check_weights(source.weights(), source.layout)
    except (WeightsError, OSError, hub.HubError) as error:
        raise TeacherError(pointer, value, str(error)) from error
    return source


def find_teacher(spec: TeacherSpec, at: str = "/teacher") -> ModelSource:
    """The teacher's name, layout and the place of its weights. Raises TeacherError."""
    try:
        if spec.model.startswith((LOCAL_DIR, HF_HUB, REGISTRY)) and spec.pretrained is not None:
            raise TeacherError(f"{at}/pretrained", spec.pretrained, f"{spec.model} brings its own weights; remove pretrained")
        if spec.model.startswith(LOCAL_DIR):
            return find_folder(spec.model.removeprefix(LOCAL_DIR))
        if spec.model.startswith(HF_HUB):
            return _find_on_hub(spec.model.removeprefix(HF_HUB))
        if spec.model.startswith(REGISTRY):
            raise TeacherError(f"{at}/model", spec.model, "only the server knows its registry; submit the spec to it")
        return _find_open_clip(spec, at)
    except (UnsupportedArchitecture, hub.HubError, OSError, WeightsError) as error:
        raise TeacherError(f"{at}/model", spec.model, str(error)) from error


def _find_open_clip(spec: TeacherSpec, at: str) -> ModelSource:
    name = spec.model.replace("/", "-")
    config = open_clip.get_model_config(name)
    if config is None:
        raise TeacherError(
            f"{at}/model",
            spec.model,
            f"is no open_clip architecture; {_did_you_mean(name, open_clip.list_models())}"
            "else use hf-hub:ORG/NAME, local-dir:PATH or registry:NAME@VERSION",
        )
    tags = list_pretrained_tags_by_model(name)
    weights = spec.pretrained
    if weights is None:
        message = f"is missing: without weights {name} is random; give one of {', '.join(tags)}"
        raise TeacherError(f"{at}/pretrained", None, message)
    tag = get_pretrained_cfg(name, weights)
    if not tag and "/" not in weights and "." not in weights:
        hint = _did_you_mean(weights, tags)
        raise TeacherError(f"{at}/pretrained", weights, f"{name} has no such weights; {hint}known: {', '.join(tags)}")
    layout = layout_of(config)
    if tag.get("quick_gelu"):  # weights trained with it need it, whatever the architecture's default
        layout = layout.model_copy(update={"quick_gelu": True})
    full_name = f"{name}@{weights.rsplit('/', 1)[-1]}"
    if not tag:
        return ModelSource(full_name, layout, lambda: weights)
    return with_colors(ModelSource(full_name, layout, lambda: hub.fetch_pretrained(tag, full_name), published=True), tag)


def _find_on_hub(repository: str) -> ModelSource:
    config = hub.fetch_config(repository)
    layout = config_layout(config, f"hf-hub:{repository}")
    source = ModelSource(repository, layout, lambda: hub.fetch_weights(repository), published=True)
    return with_colors(source, config.get("preprocess_cfg"))


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}? " if close else ""
