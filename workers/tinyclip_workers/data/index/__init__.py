"""The index of a data set's version: which shards there are, and where each sample lies in them.

`rows` has the tables, `scanning` makes those of one shard, `dataset_index` writes and reads a whole index.
"""
