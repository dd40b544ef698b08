"""Making reinforcements: the Ray job, what one would cost, and the published layout of reinforced data sets.

job        the work of the Ray job `tc-reinforcement-<id>-a<attempt>`, resumed shard by shard
progress   what is done already, and the plan that all attempts have in common
pool       actors that keep the teachers loaded; a lost one is replaced
encoder    one shard: decode, draw views, encode, write
merging    each text is stored once: which shard keeps the embeddings of a text that several have
cost       what a reinforcement would cost and save
"""
