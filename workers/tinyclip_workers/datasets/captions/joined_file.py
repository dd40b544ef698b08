"""More captions from a file, joined to the samples of a version, and their statistics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON

from tinyclip_workers.data.index.joining import JoinedCaptions, JoinedFile
from tinyclip_workers.datasets.captions.counts import CaptionCounter
from tinyclip_workers.datasets.statistics import MAX_EXAMPLES, Statistics, example

FIELD = "source.captions"


@dataclass
class CountedCaptions(JoinedCaptions):
    """The result of joining a file of captions, for the report."""

    unknown_examples: list[JSON] = field(default_factory=list)
    malformed_examples: list[JSON] = field(default_factory=list)
    statistics: Statistics = field(default_factory=Statistics)


def join_captions(
    store: ArtifactsStore,
    folder: str,
    address: str,
    urls: Sequence[str],
    context_length: int,
    on_step: Callable[[str], None],
    languages: Sequence[str] = (),
) -> CountedCaptions:
    """Join the captions of a file to the samples of a version, whose languages these are.

    `on_step` is called with a description now and then. Raises what it raises, and DataError if the file cannot be read.
    """
    joined = CountedCaptions()
    counters = [CaptionCounter(url, joined.statistics, context_length, 0) for url in urls]

    def count(shard: int, key: str, texts: list[str]) -> None:
        counters[shard].add(key, texts)

    def keep_example(detail: str) -> None:
        if len(joined.malformed_examples) < MAX_EXAMPLES:
            joined.malformed_examples.append(example("", address, detail))

    JoinedFile(store, folder, address, languages, joined, field=FIELD).join(range(len(urls)), count, keep_example, on_step)
    joined.unknown_examples = [example(key, address, "no sample has this key") for key in joined.unknown_keys]
    return joined
