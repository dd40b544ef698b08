"""SDK, command line client and wire schemas."""
