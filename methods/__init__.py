"""The erasure methods, one a file."""
