"""Model folders: their files, the weights in them, and where models come from."""
