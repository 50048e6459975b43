"""The public HTTP contract: schemas, manifest, error codes, and the clients over them."""
