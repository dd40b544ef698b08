"""Exports: a model version in the files of other libraries, made by Ray jobs."""
