"""One replica of a deployment: its models, and the state that its requests share.

`replica` holds everything. `hosted_models` selects the model of a query: the deployment's own, its canary, or a further one
that is loaded on demand. `served_model` is one loaded model: its engine and the queues of `batching`. `inference` computes the
answers of a model, with the texts of `text_cache` and the open indexes of `indexes`. `compatible` finds models whose index
another one may search. `access` checks tokens, `label_sets` reads and writes the registered label sets, `store_calls` limits what
waits for the artifacts store, and `metrics` reports to Prometheus and the access log.
"""
