"""The finalists of a search: trained versions, measured in every engine on the hardware that serves.

- `versions`: a finalist's version in the registry; `engines`: the engines and latencies that a request asks for
- `measuring`: latency, bytes and quality of versions in one engine
- `kept`: measurements of earlier attempts; `job`: the work of the Ray job
"""
