"""The children of a TrainingJob as JSON bodies: pure functions, one concept a module."""
