"""The judges, one a file: images in, raw scores out."""
