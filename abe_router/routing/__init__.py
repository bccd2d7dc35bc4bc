"""Routes, the table of routes and their policies, as values without I/O."""
