"""Differential privacy of a merge: clipping, noise, and the account of what was spent."""
