"""The results of a run: its rows and their scores as the run folder holds them, metrics and flags."""
