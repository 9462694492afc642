"""The kind TrainingJob: observe, plan, explain, render. Pure; see this folder's README."""
