"""The command line: one command a file. It renders the values of `operations` as text or JSON."""
