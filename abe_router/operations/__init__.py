"""What an operator may ask or do: functions of a route table and a backend, which return frozen values.

Nothing here prints or reads a terminal. The command line renders these values as text, and the JSON of a
value is what `--json` prints.
"""
