"""Making reinforcements: the Ray job, what one would cost, and the published layout of reinforced data sets.

job        the work of the Ray job `tc-reinforcement-<id>-a<attempt>`, resumed shard by shard
progress   what is done already, and the plan that all attempts have in common
actor      the Ray actor: an encoder in a process of its own
pool       actors that keep the teachers loaded; a lost one is replaced
encoder    one shard: decode, draw views, encode
shard_files  the two files of a shard
inputs     the teachers of a request, and the version of a data set
published  importing the embeddings that shards have in DataCompDR's layout
exporting  the reverse: `python -m tinyclip_workers.reinforcing.exporting`
merging    each text is stored once: which shard keeps the embeddings of a text that several have
cost       what a reinforcement would cost and save
"""
