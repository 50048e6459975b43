"""Steers Envoy: our routes in, xDS out; load and demand come back."""
