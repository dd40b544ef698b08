"""Checks of the training data: it exists, has images with captions, and fills the batches."""

from collections import Counter
from typing import Any

from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import WorkerRange

from tinyclip_workers.data.images import decoder_errors, open_image, to_rgb
from tinyclip_workers.data.samples import (
    Sample,
    UnusableSample,
    captions_of,
    extensions,
    image_bytes,
    is_held_out,
    sample_errors,
    sample_json,
    text_field,
)
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.languages import check_languages
from tinyclip_workers.plan.shards import ShardInspection, inspect_shards
from tinyclip_workers.training.groups.sizes import group_sizes

SAMPLED_CAPTIONS = 256
DECODED_PIXELS = 4_000_000
"""Of a larger image only the header is read: decoding takes up to 64 bytes for each pixel."""
MIN_CAPTIONS = 8
"""Fewer captions may be equal by chance."""


def check_training_data(spec: JobSpec, diagnostics: Diagnostics) -> tuple[int, bool]:
    """Check `data.train`. Return the pairs in one epoch (0 if the shards cannot be used) and whether the number is exact."""
    train = spec.data.train
    inspection = inspect_shards(train.patterns)
    report_shards(inspection, "/data/train/shards", diagnostics)
    check_images(inspection.samples, train.image_key, "/data/train", diagnostics)
    check_captions(inspection.samples, train.caption_key, "/data/train/caption_key", diagnostics)
    check_languages(inspection.samples, train, "/data/train", diagnostics)
    training = [sample for sample in inspection.samples if not is_held_out(sample["__key__"], train.holdout)]
    _check_distinct_key(spec, training, diagnostics)
    if inspection.samples and not training:
        diagnostics.error("/data/train/holdout", train.holdout, "holds every pair out of training; lower it")
    counted = len(training) if inspection.complete else round(inspection.estimate() * (1 - train.holdout))
    if train.samples is None:
        if not inspection.complete and any(stage.train.epochs is not None for stage in spec.stages):
            diagnostics.warn(f"an epoch is estimated at {counted} pairs from a few shards; set data.train.samples")
        return counted, inspection.complete
    if inspection.complete and training and train.samples != counted:
        diagnostics.warn(f"data.train.samples is {train.samples} pairs an epoch, the shards have {counted}")
    return train.samples, True


def check_batches(spec: JobSpec, samples: int, exact: bool, diagnostics: Diagnostics) -> None:
    """Check that every stage's batch divides over the workers, and that the data fills one."""
    pointers = {"/batch_size": spec.batch_size} if any(s.batch_size is None for s in spec.stages) else {}
    pointers |= {f"/stages/{i}/batch_size": s.batch_size for i, s in enumerate(spec.stages) if s.batch_size is not None}
    for pointer, size in pointers.items():
        _check_divides(pointer, size, spec.resources.workers, diagnostics)
        if exact and samples and size > samples:
            diagnostics.error(pointer, size, f"an epoch of {samples} pairs fills no such batch; lower it or add data")


def _check_divides(pointer: str, size: int, workers: int | WorkerRange, diagnostics: Diagnostics) -> None:
    sizes = group_sizes(workers, size)
    most = workers.max if isinstance(workers, WorkerRange) else workers
    if not sizes:
        least = workers.min if isinstance(workers, WorkerRange) else workers
        below, above = size // least * least, (size // least + 1) * least
        counts = f"{least} to {most}" if most > least else most
        diagnostics.error(pointer, size, f"does not divide over {counts} workers; try {f'{below} or ' if below else ''}{above}")
    elif sizes[-1] < most:
        usable = ", ".join(map(str, sizes))
        diagnostics.warn(f"{pointer} {size} divides over {usable} workers only, not over {most}: no other number is used")


def report_shards(inspection: ShardInspection, pointer: str, diagnostics: Diagnostics) -> None:
    for url, problem in inspection.problems:
        diagnostics.error(pointer, url, f"{url} {problem}")


def check_images(samples: list[Sample], image_key: list[str], pointer: str, diagnostics: Diagnostics) -> None:
    """Check that the first images can be decoded: an error if none can, else a warning, as training skips those that cannot."""
    missing: list[Sample] = []
    broken: list[tuple[Sample, Exception]] = []
    readable = 0
    for sample in samples:
        if not any(key in sample for key in image_key):
            missing.append(sample)
        elif not sample["__dropped__"]:
            try:
                with sample_errors():
                    _decode(image_bytes(sample, image_key))
                readable += 1
            except UnusableSample as unreadable:
                broken.append((sample, unreadable))
    if missing:
        message = f"sample {missing[0]['__key__']} of {missing[0]['__url__']} has no such file; it has {extensions(missing[0])}"
        _report_samples(len(missing), len(samples), f"{pointer}/image_key", image_key, message, diagnostics)
    if broken:
        sample, error = broken[0]
        url, message = sample["__url__"], f"sample {sample['__key__']} of {sample['__url__']} is {error}"
        _report_samples(len(broken), len(broken) + readable, f"{pointer}/shards", url, message, diagnostics)


def _decode(data: bytes) -> None:
    """Decode an image, but of one that takes much memory only the header. Raises any exception."""
    with decoder_errors():
        file = open_image(data)
        if file.width * file.height <= DECODED_PIXELS and file.format != "ICO":  # which contains images of other sizes
            to_rgb(file)


def _report_samples(bad: int, total: int, pointer: str, value: Any, message: str, diagnostics: Diagnostics) -> None:
    """Add an error if no sample is usable; else a warning, as such samples are skipped and counted."""
    if bad == total:
        none = f" (and so on: none of {total} samples read is usable)" if total > 1 else ""
        diagnostics.error(pointer, value, message + none)
    else:
        diagnostics.warn(f"{pointer}: {bad} of {total} samples read are skipped: {message}")


def check_captions(samples: list[Sample], caption_key: str, pointer: str, diagnostics: Diagnostics) -> None:
    """Check that captions exist, are text, differ, and are not numbers."""
    texts: list[str] = []
    unusable: list[str] = []
    for sample in samples[:SAMPLED_CAPTIONS]:
        try:
            with sample_errors():
                texts += captions_of(sample, caption_key)
        except UnusableSample as error:
            unusable.append(f"sample {sample['__key__']} of {sample['__url__']}: {error}")
    if unusable:
        message = f"{unusable[0]}; name the file or json.FIELD that holds the captions"
        _report_samples(len(unusable), len(samples[:SAMPLED_CAPTIONS]), pointer, caption_key, message, diagnostics)
    if not texts:
        return
    [(_, times)] = Counter(texts).most_common(1)
    if all(text.replace(".", "").replace("-", "").isdigit() for text in texts):
        diagnostics.error(pointer, caption_key, "the captions are numbers, not text; point to the words")
    elif times == len(texts) >= MIN_CAPTIONS:
        same = f"all {times} captions read are the same: nothing can be learned from one"
        diagnostics.error(pointer, caption_key, f"{same}; name the file or json.FIELD that holds the captions")
    elif times > len(texts) / 2 and len(texts) >= MIN_CAPTIONS:
        diagnostics.warn(f"{times} of {len(texts)} sampled captions are the same")


def _check_distinct_key(spec: JobSpec, samples: list[Sample], diagnostics: Diagnostics) -> None:
    key = spec.data.train.distinct_key
    if key is None or not samples:
        return
    values: set[str] = set()
    without: list[Sample] = []
    for sample in samples:
        try:
            with sample_errors():
                values.add(text_field(sample, key))
        except UnusableSample:
            without.append(sample)
    if without:
        sample = without[0]
        fields = f"json fields {json_fields(sample)}" if key.startswith("json.") else extensions(sample)
        message = f"sample {sample['__key__']} has none; it has {fields}"
        if not values:
            diagnostics.error("/data/train/distinct_key", key, message)
            return
        diagnostics.warn(f"/data/train/distinct_key: {len(without)} of {len(samples)} samples count as distinct: {message}")
    largest = max(stage.batch_size or spec.batch_size for stage in spec.stages)
    if len(values) < largest and len(samples) >= largest:
        diagnostics.warn(f"{key} has {len(values)} values, fewer than the {largest} pairs of a batch: some repeat in it")


def json_fields(sample: Sample) -> str:
    """Return the names of the fields of a sample's JSON, for messages."""
    try:
        with sample_errors():
            return ", ".join(sorted(sample_json(sample))) or "none"
    except UnusableSample:
        return "that cannot be read"
