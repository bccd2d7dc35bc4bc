"""From the bytes of a routes file to nodes with positions."""
