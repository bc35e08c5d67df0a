"""``python -m erasebench`` is the ``erasebench`` command."""

from erasebench.cli import main

main()
