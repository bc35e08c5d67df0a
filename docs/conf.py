"""How the documentation is built: ``make docs``.  Nothing is loaded from a network, neither here nor by the pages."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.generated import fill_in
from erasebench import __version__

project, author, version, release = "erasebench", "the erasebench authors", __version__, __version__
copyright = "the erasebench authors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**/__pycache__"]
myst_enable_extensions = ["attrs_block", "deflist"]
smartquotes = False
myst_heading_anchors = 3
highlight_language = "text"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
python_maximum_signature_line_length = 80
html_theme = "furo"
html_title = f"erasebench {__version__}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options: dict[str, object] = {"top_of_page_buttons": []}


def setup(app: Sphinx) -> None:
    """Have the marked places of the pages filled in."""
    app.connect("source-read", lambda app, page, text: text.append(fill_in(page, text.pop())))
