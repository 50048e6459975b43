"""Loops that move what is observed towards what is desired: load, plan, apply."""
