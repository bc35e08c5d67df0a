"""One thread for each process: tests run side by side, and threads of OpenMP that share a core wait by spinning."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
