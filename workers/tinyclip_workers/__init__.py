"""Distillation engine, evaluation, export and serving."""
