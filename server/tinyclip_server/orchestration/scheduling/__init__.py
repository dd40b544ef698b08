"""The scheduler of training jobs.

scheduler  the reconcile loop: claim by lease, observe, apply
leases     the jobs that a server may claim
attempts   a claim, and one round of observing its attempt
verdicts   decisions on an attempt that its events did not end
"""
