"""What `import nas_gym` costs."""

from __future__ import annotations

import subprocess
import sys

from .timing import Row, below

# The peak of the address space: `getrusage` would report that of the parent process where it was larger.
_CODE = """
import time
started = time.perf_counter()
import nas_gym
seconds = time.perf_counter() - started
with open("/proc/self/status") as status:
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
print(seconds, int(peak) / 1024)
"""


def cost() -> list[Row]:
    """Measure seconds of the import and peak memory of the whole process, the best of several fresh ones."""
    printed = [subprocess.check_output([sys.executable, "-c", _CODE], text=True).split() for _ in range(9)]
    seconds, megabytes = (min(float(row[column]) for row in printed) for column in (0, 1))
    return [below("import nas_gym", seconds, 0.3, "s"), below("memory of the process after it", megabytes, 60, "MB")]
