"""Unit tests of `wire`."""
