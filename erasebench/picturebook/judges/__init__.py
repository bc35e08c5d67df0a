"""The judges of the built-in world: what a picture shows, which style it has, how well it fits a text."""
