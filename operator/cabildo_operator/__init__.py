"""The Cabildo operator."""
