"""Searches: the smallest student that meets constraints, and sweeps over settings of a spec.

`endpoints` are the routes, `service` the operations, `repository` the queries and `views` the documents of the API. `lifecycle`
is the state machine, `checks` validates what is requested, and `trials` collects what is known of a search's trials, which are
ordinary jobs. `orchestration/searches` obeys the engine's advice, and follows the searches' own Ray jobs.
"""
