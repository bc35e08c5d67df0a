"""Metrics of images: pure functions from raw scores and features to numbers with 95 % intervals.

Nothing here imports torch, reads a clock or draws from an unseeded generator: the same scores give the same numbers.
"""
