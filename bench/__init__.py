"""Benchmarks: the product beside its peers, in one run on one machine. Run by ``make bench``."""
