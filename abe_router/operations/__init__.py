"""What an operator may ask or do, as functions and frozen values of a route table and a backend.

Nothing here prints or reads a terminal. The command line renders these values as text, and the JSON of a
value is what `--json` prints.
"""
