"""Is the training data there, is it pictures with captions, and does it fill the batches?"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tinyclip.schemas import FieldError, JobSpec
from tinyclip.schemas.spec import WorkerRange

from tinyclip_workers.data.images import decode_image
from tinyclip_workers.data.shards import Sample, captions_of, field_of, image_bytes, is_held_out, sample_json
from tinyclip_workers.plan.shards import ShardInspection, extensions, inspect_shards

SAMPLED_CAPTIONS = 256
FEW_FOR_A_VERDICT = 8
"""Fewer samples than this do not show that all captions are alike."""


@dataclass
class Diagnostics:
    """What is wrong (the spec is refused) and what is odd (the plan says so)."""

    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, pointer: str, value: Any, message: str) -> None:
        self.errors.append(FieldError(pointer=pointer, value=value, message=message))

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)


def check_training_data(spec: JobSpec, diagnostics: Diagnostics) -> tuple[int, bool]:
    """Pairs in one epoch and whether that is exact; 0 where the shards cannot be used."""
    train = spec.data.train
    inspection = inspect_shards(train.shards)
    report_shards(inspection, "/data/train/shards", diagnostics)
    check_images(inspection.samples, train.image_key, "/data/train", diagnostics)
    check_captions(inspection.samples, train.caption_key, "/data/train/caption_key", diagnostics)
    seen = [sample for sample in inspection.samples if not is_held_out(sample["__key__"], train.holdout)]
    _check_distinct_key(spec, seen, diagnostics)
    if inspection.samples and not seen:
        diagnostics.error("/data/train/holdout", train.holdout, "holds every pair out of training; lower it")
    counted = len(seen) if inspection.complete else round(inspection.estimate() * (1 - train.holdout))
    if train.samples is None:
        if not inspection.complete and any(stage.train.epochs is not None for stage in spec.stages):
            diagnostics.warn(f"an epoch is estimated at {counted} pairs from a few shards; set data.train.samples to what it is")
        return counted, inspection.complete
    if inspection.complete and seen and train.samples != counted:
        diagnostics.warn(f"data.train.samples says {train.samples} pairs an epoch, the shards have {counted}")
    return train.samples, True


def check_batches(spec: JobSpec, samples: int, exact: bool, diagnostics: Diagnostics) -> None:
    """Every stage's batch divides over the workers, and the data fills one in every process that reads it."""
    workers = _worker_counts(spec)
    processes = min(8, max(1, int(spec.resources.cpus_per_worker) - 1))
    pointers = {"/batch_size": spec.batch_size} if any(s.batch_size is None for s in spec.stages) else {}
    pointers |= {f"/stages/{i}/batch_size": s.batch_size for i, s in enumerate(spec.stages) if s.batch_size is not None}
    for pointer, size in pointers.items():
        uneven = [count for count in workers if size % count]
        if uneven:
            step = uneven[-1]
            below, above = size // step * step, (size // step + 1) * step
            diagnostics.error(pointer, size, f"does not divide over {step} workers; try {f'{below} or ' if below else ''}{above}")
        if exact and samples and size * processes > samples:
            most = samples // processes
            diagnostics.error(pointer, size, f"an epoch of {samples} pairs fills batches of at most {most}; lower it or add data")


def report_shards(inspection: ShardInspection, pointer: str, diagnostics: Diagnostics) -> None:
    for url, problem in inspection.problems:
        diagnostics.error(pointer, url, f"{url} {problem}")


def check_images(samples: list[Sample], image_key: list[str], pointer: str, diagnostics: Diagnostics) -> None:
    """The first pictures decode. All unreadable is an error, some are a warning: training skips them."""
    without: list[Sample] = []
    broken: list[tuple[Sample, Exception]] = []
    readable = 0
    for sample in samples:
        try:
            data = image_bytes(sample, image_key)
            if not sample["__dropped__"]:
                decode_image(data)
                readable += 1
        except KeyError:
            without.append(sample)
        except ValueError as error:
            broken.append((sample, error))
    if without:
        message = f"sample {without[0]['__key__']} of {without[0]['__url__']} has no such file; it has {extensions(without[0])}"
        _all_or_some(len(without), len(samples), f"{pointer}/image_key", image_key, message, diagnostics)
    if broken:
        url, why = broken[0][0]["__url__"], f"sample {broken[0][0]['__key__']} of {broken[0][0]['__url__']} is {broken[0][1]}"
        _all_or_some(len(broken), len(broken) + readable, f"{pointer}/shards", url, why, diagnostics)


def _all_or_some(bad: int, seen: int, pointer: str, value: Any, message: str, diagnostics: Diagnostics) -> None:
    """An error where nothing is usable; else a warning, as such samples are skipped and counted."""
    if bad == seen:
        none = f" (and so on: none of {seen} samples seen is usable)" if seen > 1 else ""
        diagnostics.error(pointer, value, message + none)
    else:
        diagnostics.warn(f"{pointer}: {bad} of {seen} samples seen are skipped: {message}")


def check_captions(samples: list[Sample], caption_key: str, pointer: str, diagnostics: Diagnostics) -> None:
    """Captions are there, are text, differ, and are not mere numbers."""
    texts: list[str] = []
    unusable: list[str] = []
    for sample in samples[:SAMPLED_CAPTIONS]:
        try:
            texts += captions_of(sample, caption_key)
        except (KeyError, TypeError):
            unusable.append(f"sample {sample['__key__']} of {sample['__url__']} has none; it has {extensions(sample)}")
        except UnicodeDecodeError:
            unusable.append(f"the caption of sample {sample['__key__']} of {sample['__url__']} is not UTF-8 text")
        except ValueError:
            unusable.append(f"the caption of sample {sample['__key__']} of {sample['__url__']} is empty")
    if unusable:
        message = f"{unusable[0]}; name the file or json.FIELD that holds the captions"
        _all_or_some(len(unusable), len(samples[:SAMPLED_CAPTIONS]), pointer, caption_key, message, diagnostics)
    if not texts:
        return
    common, times = Counter(texts).most_common(1)[0]
    if all(text.replace(".", "").replace("-", "").isdigit() for text in texts):
        diagnostics.error(pointer, caption_key, f"the captions are numbers ({texts[0]!r}), not text; point to the words")
    elif times == len(texts) >= FEW_FOR_A_VERDICT:
        diagnostics.error(pointer, caption_key, f"all {times} captions seen are {common!r}: nothing can be learned from one")
    elif times > len(texts) / 2 and len(texts) >= FEW_FOR_A_VERDICT:
        diagnostics.warn(f"{times} of {len(texts)} sampled captions are {common!r}")


def _check_distinct_key(spec: JobSpec, samples: list[Sample], diagnostics: Diagnostics) -> None:
    key = spec.data.train.distinct_key
    if key is None or not samples:
        return
    values: set[str] = set()
    for sample in samples:
        try:
            values.add(str(field_of(sample, key)))
        except (KeyError, TypeError, ValueError):
            have = f"json fields {_json_fields(sample)}" if key.startswith("json.") else extensions(sample)
            diagnostics.error("/data/train/distinct_key", key, f"sample {sample['__key__']} has none; it has {have}")
            return
    largest = max(stage.batch_size or spec.batch_size for stage in spec.stages) // min(_worker_counts(spec))
    if len(values) < largest and len(samples) >= largest:
        diagnostics.warn(f"{key} has {len(values)} values, fewer than the {largest} pairs of a worker's batch: some repeat in it")


def _json_fields(sample: Sample) -> str:
    try:
        return ", ".join(sorted(sample_json(sample))) or "none"
    except ValueError:
        return "that cannot be read"


def _worker_counts(spec: JobSpec) -> list[int]:
    workers = spec.resources.workers
    return list(range(workers.min, workers.max + 1)) if isinstance(workers, WorkerRange) else [workers]
