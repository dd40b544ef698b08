"""Access to everything outside the database.

artifacts       the artifacts store, awaited
ray_gateway     Ray's Jobs API and Serve's REST API
helper_process  a subprocess of the engine; planner (one warm process) and importer (one process a file) use it
data_roots      the local paths of a request, and whether they lie in the allowed folders
"""
