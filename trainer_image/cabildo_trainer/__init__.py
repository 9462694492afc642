"""What runs inside the pods of a TrainingJob."""
