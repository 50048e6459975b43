"""What every layer needs and that knows nothing of the product's domain."""
