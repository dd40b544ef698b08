"""Each text is stored once: tables of shards, and which of them keeps a text."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tinyclip_workers.data.reinforcement.texts import (
    BUCKET_COUNT,
    Duplicates,
    TextTable,
    find_duplicates,
    hash_of,
    resolve_duplicates,
)

SHARDS = st.lists(st.lists(st.sampled_from([f"text {number}" for number in range(12)]), unique=True, max_size=8), max_size=6)


def merge(tables: list[TextTable], parts: int) -> Duplicates:
    """Find the duplicates of all tables, range by range."""
    found = []
    for part in range(parts):
        limits = BUCKET_COUNT * part // parts, BUCKET_COUNT * (part + 1) // parts
        rows = [slice(*(int(table.buckets()[limit]) for limit in limits)) for table in tables]
        hashes = np.concatenate([table.hashes_2M[:, each] for table, each in zip(tables, rows, strict=True)], axis=1)
        owners = np.concatenate([table.owners_M[each] for table, each in zip(tables, rows, strict=True)])
        places = np.concatenate([table.places_M[each] for table, each in zip(tables, rows, strict=True)])
        found.append(find_duplicates(hashes, owners, places))
    columns = [np.concatenate([getattr(each, name) for each in found]) for name in Duplicates.__dataclass_fields__]
    order = np.lexsort((columns[1], columns[0]))
    return Duplicates(*(column[order] for column in columns))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SHARDS, st.integers(1, 5))
def test_every_text_is_found_where_it_is_kept(shards: list[list[str]], parts: int) -> None:
    tables = [TextTable.of(number, map(hash_of, texts)) for number, texts in enumerate(shards)]
    if not tables:
        return
    duplicates = merge(tables, parts)
    resolved = []
    for number, table in enumerate(tables):
        own = duplicates.shards_D == number
        columns = (getattr(duplicates, name)[own] for name in Duplicates.__dataclass_fields__)
        resolved.append(resolve_duplicates(table, Duplicates(*columns)))

    kept = [[shards[number][place] for place in places] for number, (_, places) in enumerate(resolved)]
    assert sorted(text for texts in kept for text in texts) == sorted({text for texts in shards for text in texts})
    for number, texts in enumerate(shards):
        table, _ = resolved[number]
        assert table.find("another text") is None
        for text in texts:
            found = table.find(text)
            assert found is not None
            owner, place = found
            row = int(np.searchsorted(resolved[owner][1], place))
            assert kept[owner][row] == text


def test_a_hash_with_an_equal_first_half_is_another_text() -> None:
    high, low = hash_of("a text")
    table = TextTable.of(0, [(high, low ^ 1), (high, low)])

    assert table.find("a text") == (0, 1)
    assert TextTable.of(0, [(high, low ^ 1)]).find("a text") is None
