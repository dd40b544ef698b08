"""Jobs: what users ask for, and how far it has come."""
