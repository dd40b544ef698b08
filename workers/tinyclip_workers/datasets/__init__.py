"""Registration of data sets: one pass over the shards, which makes their index and a report on their content.

job           the work of the Ray job, and its errors; requests: the request, and whether it is still wanted
registration  the flow from shards to a committed version; inputs: what it reads; version_document: what it commits
scan          the pass over the shards: Ray tasks, what they look at in each sample, and their results
captions      checks and counts of captions, their languages, and more captions from a file
images        checks of images, and those of evaluation tasks, which are looked for among the pairs
statistics    counts of samples, of one shard or of many
teacher       a teacher, and the pairs that it encodes (teacher_sample)
report        from the sum to findings
browsing      samples of a version for people
"""
