"""Request and answer shapes of other products, so that their clients work with a deployment: one module each.

The routes that lead here are in `http/routes.py`.
"""
