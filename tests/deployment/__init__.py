"""The files of examples/operating that deploy a router."""
