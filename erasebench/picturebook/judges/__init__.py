"""The judges of the built-in world: what an image shows, which style it has, how well it fits a text."""
