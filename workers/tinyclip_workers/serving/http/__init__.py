"""The HTTP interface of a deployment, an ASGI application that does not depend on Serve.

`routes` is the table of all paths, `handlers` holds the handlers of our own routes, and `try_it` the page for a browser.
`application` makes the application from the table, `middleware` surrounds every request, `errors` turns exceptions into
answers, and `openapi` describes the routes.
"""
