"""The stages: the only place where the engine meets the science.  Each writes its cells' specs and reads them."""
