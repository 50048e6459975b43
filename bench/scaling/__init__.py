"""A simulator of model serving, for comparing policies of scaling on the same traces."""
