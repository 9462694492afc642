"""What a run says about itself. See the README of this folder."""
