"""Crash tests: each transition of a durable backend is cut before and after each of its steps.

A `Scenario` is a transition and what it changes. It runs again and again on a backend that is cut off at its
first step, at its second, and so on, until it gets through. After each cut a fresh backend must find every
message where it was before, or where it is after. Once the scenario has run again from its beginning, all
must be where it is after. `python -m tests.backends.crash` prints how many points there were.
"""
