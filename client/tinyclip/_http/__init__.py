"""HTTP for both clients: descriptions of calls, retries, streams, and the methods that send them."""
