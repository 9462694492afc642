"""What a model is, in one digest, and whether models fit each other."""
