"""The Ray cluster as users see it: nodes, and what of their project runs on them.

`endpoints` is the route, `service` the operation, `nodes` reads Ray's report of a node, and `repository` finds the resource of a
Ray job.
"""
