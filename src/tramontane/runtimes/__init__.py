"""Runtimes start and stop instances; each implementation hides one way to run programs."""
