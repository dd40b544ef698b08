"""The loops that bring the cluster to what the database wants, and the database to what the cluster reports.

installation            the binding of the database to its artifacts store, before anything else
scheduler, attempts     training jobs: claim by lease, observe, apply; `leases` has the jobs to claim, `verdicts` the decisions
follower                rows whose work one Ray job does, and its resources: exports, evaluations, indexes
ray_jobs                what both share: submitting, asking for a status, the verdict; event_segments reads what jobs wrote
stalls, age             jobs without progress; readings that a suspended server must not act on
deployments             Ray Serve applications; `serve_updates` changes Serve
token_digests           the tokens that deployments accept, as a file
retention, ray_records  removing what has expired from the store, the database and Ray
loops                   running a round again and again
"""
