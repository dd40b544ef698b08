"""The README.md of a model version: description, evaluation beside its teacher, usage and origin."""

from collections.abc import Sequence
from typing import Any

from tinyclip.schemas import Layout, ModelVersion, Scores, StudentSummary
from tinyclip.schemas.models import Compatibility
from tinyclip.schemas.spec import JobSpec

COUNTS = ("samples", "skipped", "skipped_shards", "texts", "train_samples", "probe_c", "unknown_tokens")
"""Entries of a result that are facts about the task rather than scores; `ms_per_image` is a score."""


MISSING = "–"


def model_card(
    version: ModelVersion,
    student: StudentSummary,
    teacher: StudentSummary | None,
    spec: JobSpec,
    *,
    has_calibration: bool = False,
) -> str:
    """Return Markdown with the front matter of model hubs. `has_calibration`: the version has calibration images."""
    parts = [_front_matter(version), _opening(version), _sizes(version, student, teacher)]
    if version.evaluation:
        parts.append(_evaluation(version))
    if version.compatible_with is not None:
        parts.append(_compatibility(version, version.compatible_with))
    usage = [_usage(version), *([_CALIBRATION] if has_calibration else [])]
    return "\n".join([*parts, *usage, _training_origin(version, spec)])


def import_card(version: ModelVersion, student: StudentSummary) -> str:
    """Return the card of an imported version: its source, and a note that it was not evaluated."""
    source: dict[str, Any] = version.lineage["import"]
    opening = f"# {version.name} {version.version}\n\nA CLIP model, imported from {source['file']} sha256 {source['sha256']}.\n"
    evaluation = "## Evaluation\n\nNot evaluated here.\n"
    activation = "QuickGELU" if isinstance(version.layout, Layout) and version.layout.quick_gelu else "GELU"
    facts = {
        "file": f"`{source['file']}`, {source['bytes']:,} bytes, sha256 `{source['sha256']}`",
        "read from": source["source"] and f"`{source['source']}`",
        "names": source["names"],
        "preset": source["preset"],
        "origin of the weights": source["origin"],
        "activation": f"{activation}, according to {source['quick_gelu_told_by']}",
        "values": ", ".join(source["dtypes"]) + ", kept as float32",
        "note": "; ".join(source["warnings"]),
    }
    code = ", ".join(f"{name} {number}" for name, number in version.lineage["code"].items())
    lines = ["## Origin", "", *(f"- {name}: {value}" for name, value in facts.items() if value), f"- {code}", ""]
    return "\n".join([_front_matter(version), opening, _sizes(version, student, None), evaluation, _usage(version), *lines])


def _front_matter(version: ModelVersion) -> str:
    tags = ["clip", "tinyclip", *(["knowledge-distillation"] if version.teacher else [])]
    library = "open_clip" if version.layout.is_uniform else "tinyclip"
    lines = ["---", f"library_name: {library}", "pipeline_tag: zero-shot-image-classification", "tags:"]
    return "\n".join([*lines, *(f"- {tag}" for tag in tags), "---", ""])


def _opening(version: ModelVersion) -> str:
    several = [f"**{teacher['name']}** ({teacher['share']:.0%})" for teacher in version.lineage.get("teachers", [])]
    names = " and ".join(several) or f"**{version.teacher}**"
    origin = f"distilled from {names} by TinyCLIP" if version.teacher else "trained by TinyCLIP without a teacher"
    if several:
        origin += f"; it inherits from {version.teacher}, which is the teacher of the tables below"
    return f"# {version.name} {version.version}\n\nA CLIP model, {origin}.\n"


def _sizes(version: ModelVersion, student: StudentSummary, teacher: StudentSummary | None) -> str:
    rows = [("teacher", teacher)] if teacher else []
    table = ["| model | parameters | of which token embedding | image | text without it | MACs |", "|---|---|---|---|---|---|"]
    for name, summary in [*rows, (version.name, student)]:
        whole, embedding = summary.image_params + summary.text_params, summary.text_params - summary.text_params_without_embedding
        sizes = (whole, embedding, summary.image_params, summary.text_params_without_embedding, summary.macs)
        table.append(f"| {name} | " + " | ".join(_count(size) for size in sizes) + " |")
    shape = f"Images of {version.image_size} px, texts of {version.context_length} tokens, embeddings of {version.embed_dim}."
    if smaller := version.embedding_sizes[:-1]:
        shape += f" They may be cut to {_listed(smaller)} numbers and normalised again."
    return "\n".join([*table, "", shape, *_vocabulary(version), ""])


def _vocabulary(version: ModelVersion) -> list[str]:
    """Return a paragraph about a reduced vocabulary."""
    report: dict[str, Any] | None = version.lineage.get("vocabulary")
    if report is None:
        return []
    share = report.get("exact_share")
    alike = f"; {share:.1%} of the captions of its evaluation would be read exactly without them" if share is not None else ""
    kept = f"Its vocabulary has {report['tokens']:,} of CLIP's {report['of']:,} tokens: those of the texts that it was trained"
    return ["", f"{kept} and evaluated with{alike}. Other words are read as smaller tokens."]


def _listed(sizes: Sequence[int]) -> str:
    return " or ".join(filter(None, [", ".join(map(str, sizes[:-1])), str(sizes[-1])]))


def _evaluation(version: ModelVersion) -> str:
    lines = ["## Evaluation", "", "Student and teacher on the same images; shares are of 1.", ""]
    for task, scores in version.evaluation.items():
        lines += [f"### {task}", "", *_task_table(version.name, scores), "", *_size_table(version, scores)]
    return "\n".join(lines)


def _size_table(version: ModelVersion, scores: Scores) -> list[str]:
    """Return the table of a task's metrics at the nested sizes of the embeddings, the whole one last; nothing without any."""
    by_size: dict[str, dict[str, Any]] = scores.student.get("by_size", {})
    if not by_size:
        return []
    rows = {**by_size, str(version.embed_dim): scores.student}
    metrics = list(next(iter(by_size.values())))
    table = [f"| numbers | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    table += [f"| {size} | " + " | ".join(_score(found.get(metric)) for metric in metrics) + " |" for size, found in rows.items()]
    return [*table, ""]


def _compatibility(version: ModelVersion, found: Compatibility) -> str:
    """Return the section on searching the teacher's index with the student, and the reverse."""
    table = ["| task | texts of | images of | R@1 | R@5 | R@10 | of the teacher's own R@10 |", "|---" * 7 + "|"]
    for task, across in found.metrics.items():
        for name, models in (("student_texts", (version.name, "teacher")), ("teacher_texts", ("teacher", version.name))):
            values = [across[name].get(f"text_to_image_r{k}") for k in (1, 5, 10)]
            share = across[name].get("share")
            cells = (*models, *map(_score, values), MISSING if share is None else f"{100 * share:.1f}%")
            table.append(f"| {task} | " + " | ".join(cells) + " |")
    text = f"The embeddings have the size of {found.teacher}'s and can be compared with them"
    if found.axes is not None:
        text += f": one of the teacher times the matrix `axes` of `{found.axes}` is in this model's coordinates, "
        text += "one of this model times its transpose in the teacher's"
    return "\n".join(["## The teacher's space", "", f"{text}.", "", *table, ""])


def _task_table(name: str, scores: Scores) -> list[str]:
    metrics = [m for m, v in scores.student.items() if isinstance(v, int | float) and m not in COUNTS]
    counts = ", ".join(f"{scores.student[c]} {c.replace('_', ' ')}" for c in COUNTS if scores.student.get(c))
    rows = [("teacher", scores.teacher)] if scores.teacher else []
    table = [f"| model | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for model, values in [*rows, (name, scores.student)]:
        table.append(f"| {model} | " + " | ".join(_score(values.get(metric)) for metric in metrics) + " |")
    return [*table, "", f"({counts})"] if counts else table


_CALIBRATION = """`calibration.npz` holds a few dozen training images, scaled to the model's input; deployments calibrate int8
on them. The model does not need it: remove it before publishing if the images are not yours to publish.
"""


def _usage(version: ModelVersion) -> str:
    if isinstance(version.layout, Layout) and not version.layout.is_uniform:
        return _usage_without_open_clip(version, version.layout)
    return f"""## Use

```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:PATH_OF_THIS_FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:PATH_OF_THIS_FOLDER")
```

or `tinyclip-client deployments create NAME --model {version.name}@{version.version}`.
"""


def _usage_without_open_clip(version: ModelVersion, shape: Layout) -> str:
    blocks = [
        f"| {tower} | {block} | {heads} | {units} |"
        for tower, layout in (("image", shape.image), ("text", shape.text))
        for block, (heads, units) in enumerate(zip(layout.heads or [], layout.mlp or [], strict=True))
    ]
    table = "\n".join(["| tower | block | heads | MLP units |", "|---|---|---|---|", *blocks])
    why = "open_clip has towers like SigLIP's (attention pooling, bidirectional texts) in fixed sizes only."
    if not shape.has_equal_blocks:
        why = "Automatic inheritance has pruned every block to its own number of heads and MLP units."
    return f"""## Use

{why} Grey: removed from the teacher.

![heads and MLP units of every block](layout.svg)

{table}

open_clip cannot build such a model. `model.safetensors` has the weights under open_clip's names, `layout.json` the shape of every
block, `preprocess.json` the preprocessing of images. TinyCLIP's workers load it:

```python
from tinyclip_workers.model.files.folders import load_folder

loaded = load_folder("PATH_OF_THIS_FOLDER")  # loaded.model.encode_image, loaded.model.encode_text, loaded.tokenizer
```

or `tinyclip-client deployments create NAME --model {version.name}@{version.version}`.
"""


def _training_origin(version: ModelVersion, spec: JobSpec) -> str:
    lines = ["## Origin", "", f"- training data: {_training_data(version, spec)}"]
    for stage in spec.stages:
        length = ", ".join(f"{value:g} {unit}" for unit, value in stage.train.model_dump(exclude_none=True).items())
        weights = (stage.objective or spec.objective).weights()
        terms = ", ".join(f"{name} {weight:g}" for name, weight in weights.items() if weight > 0)
        source = "" if stage.inherit_from is None else f" from `{stage.inherit_from}`"
        lines.append(f"- stage `{stage.name}`: inherit {stage.inherit}{source}, {length}; objective: {terms}")
    code: dict[str, Any] = version.lineage.get("code", {})
    lines += [f"- job `{version.job}`, seed {spec.seed}", "- " + ", ".join(f"{name} {number}" for name, number in code.items())]
    return "\n".join([*lines, "", "`model.json` has the whole spec and the digests of data, teacher and files.", ""])


def _training_data(version: ModelVersion, spec: JobSpec) -> str:
    shards = f"`{', '.join(spec.data.train.patterns)}`"
    dataset: dict[str, Any] | None = version.lineage.get("dataset")
    if dataset is None:
        return shards
    name, digest = f"{dataset['name']}@{dataset['version']}", dataset["digest"]
    return f"data set `{name}`, {dataset['pairs']:,} pairs, digest `{digest}`, {shards}"


def _count(number: int) -> str:
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.2f}{unit}"
    return str(number)


def _score(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else MISSING
