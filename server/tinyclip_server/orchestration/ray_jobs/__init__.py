"""The common part of all Ray jobs, those of the scheduler and those of the followers.

observation     submitting a job, asking for its status, and the verdict
event_segments  reading the events that a job wrote
stalls          jobs without progress
"""
