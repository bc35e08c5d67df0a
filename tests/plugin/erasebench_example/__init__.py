"""A plug-in package for erasebench."""
