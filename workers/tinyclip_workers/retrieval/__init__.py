"""Retrieval indexes: build them from shards, apply updates to them, open them and search them.

An index is a sequence of immutable generations over immutable segments; a search sees exactly one generation.

- `generations`, `commits`: the documents and files of an index; the newest generation, atomic commits, removal of older files.
- `job`: the Ray job. `building` encodes shards (`items` reads them, `parts` are its checkpoints). `updating` encodes accepted
  updates, and `merging` writes the segments of the next generation.
- `segment_writer`, `segment`: write and search one segment. `codes`: floats, int8 and binary codes. `graph`: approximate
  search with hnswlib. `recall`, `measuring`: accuracy and cost.
- `reader`: search a generation. `viewing`: single items and their thumbnails; `pictures` says where images lie, and `images`
  reads them.
- `postgres/`: indexes whose vectors are in PostgreSQL with pgvector.
"""
