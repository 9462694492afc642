"""`python -m cabildo_trainer.consensus`: merges of files from the command line."""
