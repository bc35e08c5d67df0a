"""The illustrated world: scenes drawn from a seed, with their captions and ground truth."""
