"""Models of other architectures than `layouts`, which open_clip or transformers build from their configuration."""
