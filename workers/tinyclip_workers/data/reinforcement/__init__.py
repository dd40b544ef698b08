"""Reinforcements: stored views of a data set's images, and teachers' embeddings of them and of its captions.

tensor_files  safetensors files that are written and read in part
embeddings    the types in which embeddings are stored
file_format   the tensors of a reinforcement's files
texts         which texts there are, and the shard that has the embeddings of each
stored        reading: the view and the targets of a sample in an epoch
check         refusing a reinforcement that does not belong to a job
"""
