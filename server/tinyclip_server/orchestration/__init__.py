"""The loops that bring the cluster to what the database wants, and the database to what the cluster reports.

scheduler, attempts     training jobs: claim by lease, observe, apply
follower                rows whose work one Ray job does, and its resources: exports, evaluations, indexes
ray_jobs                what both share: submitting, asking for a status, the verdict; event_segments reads what jobs wrote
deployments             Ray Serve applications
token_digests           the tokens that deployments accept, as a file
retention, ray_records  removing what has expired from the store, the database and Ray
loops                   running a round again and again
"""
