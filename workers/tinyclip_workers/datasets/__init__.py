"""Registration of data sets: one pass over the shards, which makes their index and a report on their content.

job             the work of the Ray job, and its errors
registration    the flow from shards to a committed version; inputs: what it reads; version_document: what it commits
shard_tasks     the Ray tasks, each of which scans one shard and writes a part
examination     what is looked at in each sample: image_checks, caption_checks, caption_counts, languages, filters
parts, merging  the parts in the artifacts store, and their sum
task_images     images of evaluation tasks, which are looked for among the pairs
captions_file   more captions, joined to the samples
teacher         a teacher, and the pairs that it encodes (teacher_sample)
browsing        samples of a version for people
report          from the sum to findings
"""
