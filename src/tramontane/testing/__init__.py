"""Fakes whose failures are configuration, and the suite that every runtime must pass."""
