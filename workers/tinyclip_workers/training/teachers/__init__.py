"""The teachers of a stage: live ones, and embeddings that were stored before.

- `frozen` runs them on a batch, `encoder` on images and texts of a data set.
- `stored` finds and verifies the embeddings of a reinforcement that take their place.
"""
