"""The objective of a step (METHOD sections 2 and 8): what its terms compute from the embeddings of a batch.

- `losses` has the affinity and contrastive losses, `terms` all named terms and their weighted sum.
- `nested` computes them for nested sizes of the embeddings, on the principal axes of the teacher's.
- `projection` maps a student's embeddings into the teacher's space where their sizes differ.
"""
