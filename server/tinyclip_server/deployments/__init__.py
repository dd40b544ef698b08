"""Deployments: model versions that Ray Serve answers queries with."""
