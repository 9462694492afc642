"""The training loop and what makes it exact. See the README of this folder."""
