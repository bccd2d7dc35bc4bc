"""What travels: messages, routing keys and patterns, JSON pointers, message ids."""
