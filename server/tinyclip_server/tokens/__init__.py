"""Tokens: who may do what, and what deployments are told of it."""
