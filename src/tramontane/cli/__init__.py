"""The command tram: verbs over the public API, and nothing of the server."""
