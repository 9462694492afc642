"""One level-triggered loop for every kind: key -> observe -> plan -> act -> status.

`loop.py` is the same for every kind; each kind's folder holds its pure functions.
"""
