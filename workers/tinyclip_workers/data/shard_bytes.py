"""How much of a set of shards has gone by: by bytes, since the number of samples is in no header."""

from tinyclip_workers.data.shards import Sample
from tinyclip_workers.runtime.filesystems import open_filesystem

TAR_BLOCK = 512


class SeenBytes:
    """Told of every sample; `urls` are the shards, as often as they are read."""

    def __init__(self, urls: list[str], seen: int = 0) -> None:
        self.seen, self._total = seen, _total_bytes(urls)

    def saw(self, sample: Sample) -> None:
        """A file in a tar takes a header and its bytes, both rounded up to blocks."""
        for key, data in sample.items():
            if not key.startswith("__"):
                self.seen += TAR_BLOCK + -(-len(data) // TAR_BLOCK) * TAR_BLOCK

    def share(self) -> float | None:
        """0 to 1; null where a store does not tell sizes, or shards are packed."""
        return min(1.0, self.seen / self._total) if self._total else None


def _total_bytes(urls: list[str]) -> int | None:
    """Unreadable shards count nothing: that they are is found when they are read."""
    total = 0
    for url in urls:
        try:
            fs, path = open_filesystem(url)
            size = fs.size(path)
        except (OSError, ValueError):
            continue
        if size is None or url.endswith("gz"):
            return None
        total += size
    return total
