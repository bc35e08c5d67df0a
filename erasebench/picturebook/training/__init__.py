"""Training of the built-in model and its judges from nothing."""
