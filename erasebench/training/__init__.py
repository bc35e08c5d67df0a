"""What methods and attacks share: what is trained, on what, and how it is watched."""
