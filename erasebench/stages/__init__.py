"""The five stages: the only place where the engine meets the science."""
