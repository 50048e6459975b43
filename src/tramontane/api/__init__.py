"""The HTTP API: authenticate, parse, call the store, answer, nudge."""
