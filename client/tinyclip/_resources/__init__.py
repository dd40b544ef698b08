"""The client's resources: the calls of each, and its methods for the sync and the async client."""
