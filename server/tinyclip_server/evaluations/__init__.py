"""Evaluations: any model on any tasks, measured by Ray jobs."""
