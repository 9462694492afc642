"""Models in safetensors files: read by tiles and hashed while read; written whole or not at all."""
