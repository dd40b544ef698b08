"""Indexes whose vectors live in PostgreSQL, in tables with pgvector's types."""
