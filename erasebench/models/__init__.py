"""Models under test, and what an erasure method does to them."""
