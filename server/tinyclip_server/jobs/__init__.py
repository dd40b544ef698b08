"""Jobs: the resource that users submit, and its history.

`endpoints` and `history` are the routes, `service` the operations, `repository` the queries and `views` the documents of the
API. `lifecycle` is the state machine of jobs, stages and attempts; `specs` resolves and plans a spec; `intake` applies the
events of workers; `series` reduces metrics, `checkpoints` lists committed checkpoints, and `cleanup` removes what ended attempts
and deleted jobs leave behind.
"""
