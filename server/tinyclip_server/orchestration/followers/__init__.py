"""Followers of rows whose work one Ray job does: `follower` has the reconcile loop, and each resource a module of its own."""
