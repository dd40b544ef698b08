"""Faults injected into the real service: `python -m bench.chaos` from the repository's root.

`cases` has the faults, `jobs` the job and the checks of its outcome, `profiles` the services (with `cluster`, `nodes`,
`postgres` and `machine`), `report` the results. `searches` kills processes under a search, with `search_runs` and
`search_outcome`.
"""
