"""Data sets: from shards to samples, from encoded images to pixels, and from both to batches for training.

- `patterns`: the shards that a pattern names; `tar_files`: the files of an untrusted tar stream; `shards`: their samples
- `samples`: the fields of a sample, and the place where whatever its content raises becomes one exception; `errors`: counts of
  what was skipped
- `images`: decode an image of any format; `crops`: the random crop of training; `eval_transform`: the transform of evaluation
- `decoding`: the same by the fastest way, for serving; `image_input`: images that a client sends
- `index`: the place of every sample in the shards; `reinforcement`: stored embeddings of teachers
- `stream`: the training input, a repeatable stream of batches; `augment`: augmentation of a batch on the training device
"""
