"""Weight inheritance: a smaller student out of a larger model (METHOD sections 7 and 13).

- `leading`: the leading part of every tensor, the paper's manual inheritance.
- `importance`, `depth`: which heads, MLP units and blocks the embeddings depend on, measured on calibration pairs.
- `shape`: how many of them a student of a given total size has in each block.
- `principal_axes`: a change of basis after which a narrow residual stream holds almost all of a wide one.
- `reconstruction`, `resnet_reconstruction`: a least-squares fit of what remains to what the parent computed.
- `pooling`: the attention pooling of SigLIP's images.
- `transformers`, `resnets`: one tower of a student, by all of these. `students`: both towers.
- `streams`: the calculation of a tower block by block, for the modules above.
"""
