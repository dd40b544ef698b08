"""The scan of the shards: each on its own, by a Ray task that writes a part, then the sum of the parts.

tasks        the Ray tasks
examination  what is looked at in each sample: its image, its captions, and `where` (filters)
parts        the result for one shard in the artifacts store
merging      the sum of all parts
"""
