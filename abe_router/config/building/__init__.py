"""From nodes to a route table, or every fault in the file."""
