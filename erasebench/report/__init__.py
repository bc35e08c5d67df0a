"""The output that a reader sees: tables, sheets of samples and the cost of each cell.  Nothing here imports torch."""
