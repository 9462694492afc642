"""Merges of models that are trusted: soups, task vectors, spheres, statistics. Start at `soups`."""
