"""The catalogue of concepts: what can be erased, which prompts ask for it and which judge sees it."""

from erasebench.concepts._files import CatalogueError
from erasebench.concepts.catalogue import (
    KINDS,
    SENSITIVE_KINDS,
    Catalogue,
    Concept,
    RetainPrompt,
    View,
)
from erasebench.concepts.prompt import OWN_KINDS, PROMPT_KINDS, Prompt
from erasebench.concepts.prompt_sets import AUTO, Hub, PromptSet, Selection
from erasebench.concepts.reading import load_catalogue

__all__ = [
    "AUTO",
    "KINDS",
    "OWN_KINDS",
    "PROMPT_KINDS",
    "SENSITIVE_KINDS",
    "Catalogue",
    "CatalogueError",
    "Concept",
    "Hub",
    "Prompt",
    "PromptSet",
    "RetainPrompt",
    "Selection",
    "View",
    "load_catalogue",
]
