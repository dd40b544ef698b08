"""Access to everything outside the database.

artifacts       the artifacts store, awaited
ray_gateway     Ray's Jobs API and Serve's REST API
helper_process  a subprocess of the engine; planner (a few warm processes) and importer (one process a file) use it
turns           the turns of projects at these processes
data_roots      the addresses of a request, and whether they may be read
"""
