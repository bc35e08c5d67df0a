"""The suites, one published protocol a file."""
