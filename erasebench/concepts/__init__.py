"""The catalogue of concepts: what can be erased, which prompts ask for it and which judge sees it."""

from erasebench.concepts._files import CatalogueError
from erasebench.concepts.catalogue import (
    DOMAINS,
    KINDS,
    Catalogue,
    Concept,
    PromptSet,
    RetainPrompt,
    View,
    load_catalogue,
)

__all__ = [
    "DOMAINS",
    "KINDS",
    "Catalogue",
    "CatalogueError",
    "Concept",
    "PromptSet",
    "RetainPrompt",
    "View",
    "load_catalogue",
]
