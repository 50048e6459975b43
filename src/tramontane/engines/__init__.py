"""An engine serves a model's weights: pure functions from a model to what must be run."""
