"""From an HTTP request to a checked query.

`bodies` reads JSON and multipart bodies within their limits. `zero_shot`, `embeddings` and `search` make the query of their
route, `inputs` checks its texts and images, and `fetching` downloads images given by URL. Everything invalid raises a
`ProblemError` that names the field.
"""
