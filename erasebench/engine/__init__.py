"""The engine: what a unit of work is, where its result is kept, and who does it."""
