"""Checks of languages: captions in each of them, in the shards or in the file that is joined to them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import RetrievalTask, TrainData

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.caption_files import NO_LANGUAGE, read_entries
from tinyclip_workers.data.samples import Sample, UnusableSample, captions_by_language, sample_errors
from tinyclip_workers.plan.diagnostics import Diagnostics

READ_ENTRIES = 1000
"""Lines or rows of a file of captions that a plan reads."""

Source = TrainData | RetrievalTask


def check_languages(samples: Sequence[Sample], source: Source, pointer: str, diagnostics: Diagnostics) -> None:
    """Check that there are captions in each language of training data or a task, and that its file of captions can be read.

    `pointer`: of the training data or the task.
    """
    found = _languages_of(samples, source) + _languages_of_file(source, f"{pointer}/captions", diagnostics)
    if not found or not source.languages:
        return
    here = ", ".join(language for language, _ in found.most_common(10))
    for number, language in enumerate(source.languages):
        if not found[language]:
            message = f"no caption that was read is in {language}; they are in {here}. Correct it, or give captions in it"
            diagnostics.error(f"{pointer}/languages/{number}", language, message)
    if isinstance(source, TrainData) and (others := sorted(set(found) - set(source.languages))):
        diagnostics.warn(f"data.train.languages does not name {', '.join(others[:10])}: captions in these are not used")


def check_teachers_languages(spec: JobSpec, languages: Sequence[str], diagnostics: Diagnostics) -> None:
    """Check that the pairs have captions in the language that a teacher reads. `languages`: of the training data."""
    for teacher in spec.every_teacher():
        language = teacher.spec.language
        if language is not None and language not in languages:
            known = f"they are {', '.join(languages)}" if languages else "the training data has no languages"
            message = f"is none of the languages of the captions: {known}. Correct it, or omit it"
            diagnostics.error(f"{teacher.pointer}/language", language, message)


def _languages_of(samples: Iterable[Sample], source: Source) -> Counter[str]:
    """Count samples by the languages of their captions in the shards."""
    found: Counter[str] = Counter()
    for sample in samples if source.languages else ():
        try:
            with sample_errors():
                found.update(captions_by_language(sample, source.caption_key, source.languages[0]).keys())
        except UnusableSample:
            continue
    return found


def _default(source: Source) -> str:
    return source.languages[0] if source.languages else NO_LANGUAGE


def _languages_of_file(source: Source, pointer: str, diagnostics: Diagnostics) -> Counter[str]:
    """Count the first lines or rows of the file of captions by language; it is an error if it cannot be read."""
    found: Counter[str] = Counter()
    if source.captions is None:
        return found
    malformed = ""
    try:
        for number, entry in enumerate(islice(read_entries(source.captions, "captions"), READ_ENTRIES), start=1):
            if isinstance(entry, str):
                malformed = malformed or f"line or row {number:,} {entry}"
            else:
                found.update(language or _default(source) for language in entry[1])
    except FileNotFoundError:
        diagnostics.error(pointer, source.captions, f"there is no file {source.captions}; correct the path")
        return Counter()
    except (DataError, OSError, EOFError, ValueError) as error:
        diagnostics.error(pointer, source.captions, f"cannot be read ({error}); give JSON lines or Parquet of key and captions")
        return Counter()
    if not found:
        message = malformed or "it is empty"
        diagnostics.error(pointer, source.captions, f'{message}; write {{"key": …, "captions": […]}} on each line')
    elif malformed:
        diagnostics.warn(f"{pointer}: {malformed}; such lines are skipped")
    return found
