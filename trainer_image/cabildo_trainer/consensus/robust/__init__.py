"""Rules that bound what f arbitrary participants can do to the result."""
