"""Retrieval indexes: sets of pictures that a deployment searches, built by Ray jobs."""
