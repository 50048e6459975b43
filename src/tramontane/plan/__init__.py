"""Decides: pure functions from a snapshot and the time to a plan value. Nothing here acts."""
