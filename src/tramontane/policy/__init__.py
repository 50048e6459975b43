"""Residency: facts about a place, what a preset demands, the verdict with reasons. Pure."""
