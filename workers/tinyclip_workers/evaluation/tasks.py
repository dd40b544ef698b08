"""Run evaluation tasks: zero-shot classification, retrieval and linear probes, of several models on the same images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from tinyclip.artifacts.predictions import ModelPredictions
from tinyclip.schemas.spec import EvaluationTask, LinearProbeTask, RetrievalTask, ZeroShotTask
from torch import Tensor

from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample, is_held_out
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.evaluation import metrics
from tinyclip_workers.evaluation.by_language import CaptionFiles, LanguageTask, split_by_language
from tinyclip_workers.evaluation.clip_benchmark import resolve_task
from tinyclip_workers.evaluation.compatibility import RetrievalSet, SharedSpace, across_models
from tinyclip_workers.evaluation.embedding import EmbeddedImages, embed_images, embed_texts, evaluation_mode, leading
from tinyclip_workers.evaluation.labels import (
    MAX_PROMPTS,
    ValueReader,
    class_names,
    fill_template,
    prompt_templates,
    prompts_problem,
    task_error,
)
from tinyclip_workers.evaluation.predictions import PredictedTasks, most_likely, read_with_places, task_predictions
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.tokenizers import count_unknown_tokens

ModelScores = dict[str, dict[str, Any]]
"""Metrics by the name of the model."""

OnSample = Callable[[Sample], None]


def evaluate_tasks(
    models: Mapping[str, LoadedModel],
    tasks: Sequence[EvaluationTask],
    *,
    holdout: float = 0.0,
    device: torch.device | str = "cpu",
    on_sample: OnSample = lambda sample: None,
    shared: SharedSpace | None = None,
    predicted: PredictedTasks | None = None,
) -> dict[str, ModelScores]:
    """Return the scores of every model in every task, as {task: {name: {metric: value}}}; by language as {task.language: …}.

    Each image is decoded once and encoded by all models; tasks with the same shards share one pass over them.
    Beside the metrics: the counts `samples`, `skipped` and `skipped_shards`, of models with a reduced vocabulary the
    `unknown_tokens` of a task's texts, and `ms_per_image`: the image tower alone, in fp32 on this machine, the median over the
    batches of 64. A model with nested embeddings has the metrics of each smaller size in `by_size`, but for linear probes.
    In retrieval tasks, a student in the `shared` space of its teacher has `with_teacher`: how well each finds the other's images.
    `holdout` is the spec's `data.train.holdout`. `on_sample` is called with every sample that is read, for progress.
    `predicted` receives the predictions of zero-shot tasks. Models are in evaluation mode meanwhile; their mode is restored
    afterwards.
    Raises DataError if nothing can be evaluated or a label has no class.
    """
    scores: dict[str, ModelScores] = {}
    split = list(split_by_language(tasks))
    with evaluation_mode(models.values(), torch.device(device)), CaptionFiles() as files:
        files.prepare(split)
        for group in _group_by_shards([resolve_task(task) for task in split]):
            for task, data, skipped in _embed(models, group, holdout, on_sample, files):
                scores_of_task = _score(models, task, data, holdout, on_sample, shared, predicted)
                counts = {"samples": len(data.keys), "skipped": skipped.samples, "skipped_shards": skipped.shards}
                scores[task.name] = {
                    name: {**scores_of_task[name], **counts, "ms_per_image": round(data.ms_per_image[name], 4)} for name in models
                }
    return {task.name: scores[task.name] for task in split}


def shards_to_read(tasks: Sequence[EvaluationTask]) -> list[str]:
    """Return the shards of all passes that `evaluate_tasks` makes over the samples; for progress. Raises DataError."""
    resolved = [resolve_task(task) for task in split_by_language(tasks)]
    read = [group[0] for group in _group_by_shards(resolved)]
    probes = [task for task in resolved if isinstance(task, LinearProbeTask)]
    read += [task.model_copy(update={"shards": task.train_shards or []}) for task in probes]
    return [url for task in read for url in _shards(task)]


def _shards(task: EvaluationTask) -> list[str]:
    return expand_shards(task.shards, f"evaluation.tasks.{task.name}.shards")


def _group_by_shards(tasks: Sequence[EvaluationTask]) -> list[list[EvaluationTask]]:
    groups: dict[tuple[object, ...], list[EvaluationTask]] = {}
    for task in tasks:
        groups.setdefault((tuple(_shards(task)), tuple(task.image_key)), []).append(task)
    return list(groups.values())


def _score(
    models: Mapping[str, LoadedModel],
    task: EvaluationTask,
    data: EmbeddedImages,
    holdout: float,
    on_sample: OnSample,
    shared: SharedSpace | None,
    predicted: PredictedTasks | None,
) -> ModelScores:
    if isinstance(task, ZeroShotTask):
        return _zero_shot(models, task, data, predicted)
    if isinstance(task, RetrievalTask):
        return _retrieval(models, data, shared)
    return _linear_probe(models, task, data, holdout, on_sample)


def _zero_shot(
    models: Mapping[str, LoadedModel], task: ZeroShotTask, data: EmbeddedImages, predicted: PredictedTasks | None
) -> ModelScores:
    assert task.classes is not None, "a resolved task has classes"
    assert task.templates is not None, "a resolved task has templates"
    classes, templates, labels_N = class_names(task), prompt_templates(task), torch.tensor(data.values)
    if len(classes) * len(templates) > MAX_PROMPTS:
        raise task_error(task, "templates", f"task {task.name}: {prompts_problem(classes, templates)}", task.templates)
    prompts = [fill_template(template, name) for template in templates for name in classes]
    scores: ModelScores = {}
    found: dict[str, ModelPredictions] = {}
    for name, loaded in models.items():
        image_NE, texts_TCE = data.images_NE[name], embed_texts(loaded, prompts).view(len(templates), len(classes), -1)
        scores_NC = image_NE @ metrics.class_embeddings(texts_TCE).T
        scores[name] = _classification_scores(scores_NC, labels_N, classes)
        if predicted is not None:
            found[name] = most_likely(scores_NC, float(loaded.model.logit_scale.exp()))

        def at_size(size: int, image_NE: Tensor = image_NE, texts_TCE: Tensor = texts_TCE) -> dict[str, Any]:
            classes_CE = metrics.class_embeddings(texts_TCE[..., :size])
            return metrics.classification(leading(image_NE, size) @ classes_CE.T, labels_N)

        scores[name] |= {**_by_size(loaded, at_size), **_unknown_tokens(loaded, prompts)}
    if predicted is not None:
        predicted[task.name] = task_predictions(task, classes, data.keys, data.places, labels_N, found)
    return scores


def _by_size(loaded: LoadedModel, at_size: Callable[[int], dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the numbers among the scores at each nested size but the whole one, in `by_size`; nothing without any."""
    scores = {str(size): at_size(size) for size in loaded.embedding_sizes[:-1]}
    numbers = {size: {name: value for name, value in found.items() if isinstance(value, float)} for size, found in scores.items()}
    return {"by_size": numbers} if numbers else {}


def _unknown_tokens(loaded: LoadedModel, texts: Sequence[str]) -> dict[str, int]:
    """Return a count of the tokens that a reduced vocabulary does not have; nothing for a whole one."""
    unknown = count_unknown_tokens(loaded.tokenizer, texts)
    return {} if unknown is None else {"unknown_tokens": unknown}


def _classification_scores(scores_NC: Tensor, labels_N: Tensor, classes: list[str]) -> dict[str, Any]:
    worst = metrics.worst_classes(scores_NC, labels_N, classes)
    return {**metrics.classification(scores_NC, labels_N), "worst_classes": worst}


def embed_retrieval(models: Mapping[str, LoadedModel], task: RetrievalTask, *, holdout: float = 0.0) -> RetrievalSet:
    """Return the embeddings of a task's images and texts by every model, on the CPU. Raises DataError."""
    with evaluation_mode(models.values(), torch.device("cpu")):
        [(_, data, _)] = _embed(models, [task], holdout, lambda sample: None)
        return _retrieval_set(models, data)


def _retrieval_set(models: Mapping[str, LoadedModel], data: EmbeddedImages) -> RetrievalSet:
    """A caption of several images is one text, and any of these images is correct."""
    row: dict[str, int] = {}
    rows = [[row.setdefault(text, len(row)) for text in captions] for captions in data.values]
    texts_ME = {name: embed_texts(loaded, list(row)) for name, loaded in models.items()}
    return RetrievalSet(data.images_NE, texts_ME, rows)


def _retrieval(models: Mapping[str, LoadedModel], data: EmbeddedImages, shared: SharedSpace | None) -> ModelScores:
    found, scores = _retrieval_set(models, data), ModelScores()
    rows, texts = found.texts_of_image, list(dict.fromkeys(text for captions in data.values for text in captions))
    for name, loaded in models.items():
        image_NE, text_ME = found.images_NE[name], found.texts_ME[name]

        def at_size(size: int, image_NE: Tensor = image_NE, text_ME: Tensor = text_ME) -> dict[str, Any]:
            return metrics.retrieval(leading(image_NE, size), leading(text_ME, size), rows)

        numbers = {**metrics.retrieval(image_NE, text_ME, rows), "texts": len(text_ME)}
        scores[name] = {**numbers, **_by_size(loaded, at_size), **_unknown_tokens(loaded, texts)}
    if shared is not None:
        scores[shared.student]["with_teacher"] = across_models(found, shared)
    return scores


def _linear_probe(
    models: Mapping[str, LoadedModel], task: LinearProbeTask, data: EmbeddedImages, holdout: float, on_sample: OnSample
) -> ModelScores:
    """With `subset: holdout` the probe learns from samples that are not held out, so the shards may be the same."""
    train_task = task.model_copy(update={"shards": task.train_shards, "subset": "all", "where": {}})

    def is_usable(key: str) -> bool:
        return task.subset == "all" or not is_held_out(key, holdout)

    [(_, train, _)] = _embed(models, [train_task], holdout, on_sample, is_usable=is_usable)
    row = {label: i for i, label in enumerate(sorted(set(train.values), key=lambda label: (len(label), label)))}
    if len(row) < 2:
        message = f"task {task.name}: all labels of train_shards are {min(row)}; a probe needs two classes"
        raise task_error(task, "train_shards", message, task.train_shards)
    train_N, test_N = (torch.tensor([row.get(label, -1) for label in d.values]) for d in (train, data))
    scores: ModelScores = {}
    for name, loaded in models.items():
        device = loaded.model.logit_scale.device
        train_NE, test_NE = train.images_NE[name].to(device), data.images_NE[name].to(device)
        probe_NC, c = metrics.linear_probe(train_NE, train_N.to(device), test_NE)
        found = _classification_scores(probe_NC.cpu(), test_N, list(row))
        scores[name] = {**found, "probe_c": c, "train_samples": len(train.keys)}
    return scores


def _embed(
    models: Mapping[str, LoadedModel],
    tasks: Sequence[EvaluationTask],
    holdout: float,
    on_sample: OnSample,
    files: CaptionFiles | None = None,
    is_usable: Callable[[str], bool] = lambda key: True,
) -> list[tuple[EvaluationTask, EmbeddedImages, Skipped]]:
    """Make one pass over the shards that these tasks share. Return each task's part; raises DataError if one is empty."""
    skipped, skipped_shards = [Skipped() for _ in tasks], Skipped()
    readers = [ValueReader(task, holdout, _caption_reader(task, files)) for task in tasks]

    def selected() -> Iterator[tuple[Sample, dict[int, Any]]]:
        for sample in read_shards(_shards(tasks[0]), skipped_shards, reader=read_with_places):
            on_sample(sample)
            values = _values(sample, readers, skipped) if is_usable(sample["__key__"]) else {}
            if values:
                yield sample, values

    def on_unreadable(sample: Sample, values: dict[int, Any], error: Exception) -> None:
        for index in values:
            skipped[index].add_sample(sample["__key__"], error)

    data = embed_images(models, selected(), tasks[0].image_key, on_unreadable)
    parts = []
    for index, task in enumerate(tasks):
        rows = [row for row, values in enumerate(data.values) if index in values]
        readers[index].expect_classes(len(rows))
        if not rows:
            examples = "; ".join(skipped[index].examples) or "subset and where select no sample"
            raise task_error(task, "shards", f"task {task.name} has nothing to evaluate ({examples})", task.shards)
        skipped[index].shards = skipped_shards.shards
        parts.append((task, data.select(rows, [data.values[row][index] for row in rows]), skipped[index]))
    return parts


def _caption_reader(task: EvaluationTask, files: CaptionFiles | None) -> Callable[[Sample], list[str]] | None:
    """Return a function for the captions of a task of one language; None for another task."""
    if not isinstance(task, LanguageTask) or files is None:
        return None
    return lambda sample: files.read_captions(sample, task, by_line=not task.caption_key.startswith("json."))


def _values(sample: Sample, readers: Sequence[ValueReader], skipped: list[Skipped]) -> dict[int, Any]:
    """Return the label or captions for each task that selects the sample, by the task's number."""
    values: dict[int, Any] = {}
    for index, reader in enumerate(readers):
        with skipped[index].unusable(sample):
            if reader.selects(sample):
                values[index] = reader.read(sample)
    return values
