"""The time limit of what hangs: a guard, which no slow machine reaches.

What must be quick has the fixture `control`, which subtracts what the machine withheld.
"""

from __future__ import annotations

#: How long a test waits for what must come, in seconds.
HANG = 30.0
