"""Retrieval indexes: how they lie in the artifacts store, are built, changed, opened and searched."""
