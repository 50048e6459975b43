"""Residency: what is known about a place, what a preset demands, and the verdict with reasons. Pure."""
