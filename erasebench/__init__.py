"""erasebench measures how well a concept can be erased from a text-to-image diffusion model.

Importing this package is cheap: nothing here imports torch.
"""

from __future__ import annotations

from erasebench.errors import EraseBenchError

__version__ = "0.1.0"

__all__ = ["EraseBenchError", "__version__"]
