"""Talking to the API server: client, informer, stores, lease, writes.

Knows Kubernetes and nothing of Cabildo's own kinds: labels, names and meanings come in as
parameters. What is to be done is decided in `reconcile/`; here it is only done.
"""
