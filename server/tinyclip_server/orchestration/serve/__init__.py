"""Ray Serve gets what the database wants.

deployments    the reconcile loop of its applications
updates        changes of Serve's configuration
token_digests  the tokens that its applications accept, as a file
"""
