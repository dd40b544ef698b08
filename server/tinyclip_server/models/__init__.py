"""The registry: models, their versions and the names given to versions."""
