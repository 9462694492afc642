"""The cabildo command."""
