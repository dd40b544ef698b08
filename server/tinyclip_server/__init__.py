"""Control plane: HTTP API, database and scheduler."""
