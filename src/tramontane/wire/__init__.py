"""The public HTTP contract: schemas, the manifest, error codes, and the Python clients over them."""
