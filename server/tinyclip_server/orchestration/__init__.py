"""The loops that bring the cluster to what the database wants, and the database to what the cluster reports.

installation            the binding of the database to its artifacts store, before anything else
scheduling              training jobs: the scheduler, leases and attempts
followers               rows whose work one Ray job does: data sets, evaluations, exports, indexes, reinforcements
ray_jobs                what both share: submitting a Ray job, its status, its events, the verdict
serve                   Ray Serve: deployments, and the tokens that they accept
retention, ray_records  removing what has expired from the store, the database and Ray
age                     readings that a suspended server must not act on
loops                   running a round again and again
"""
