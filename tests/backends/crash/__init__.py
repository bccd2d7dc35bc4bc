"""Every crash there can be: each transition of a durable backend, cut before and after each of its steps.

A `Story` is a transition and what it changes. It is told again and again, to a backend that is cut off at
its first step, at its second, and so on, until it gets through. Each time a fresh backend must find every
message where it was before or where it is after; and once the story was told again from its beginning,
everything must be where it belongs. `python -m tests.backends.crash` prints how many points there were.
"""
