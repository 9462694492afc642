"""The cabildo.dev API: the kinds, their vocabulary and wire formats."""
