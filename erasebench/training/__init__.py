"""The common ground of methods and attacks: what is trained, on what, and how it is watched."""
