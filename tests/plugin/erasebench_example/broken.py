"""A module that cannot be imported."""

raise ImportError("libexample.so.3 is missing")
