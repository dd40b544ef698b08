"""The loops of searches: `loop` asks the engine for advice and obeys it, `measurements` follows the searches' own Ray jobs."""
