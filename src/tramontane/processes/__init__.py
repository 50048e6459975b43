"""Entry points: read settings, choose implementations, list the parts in order."""
