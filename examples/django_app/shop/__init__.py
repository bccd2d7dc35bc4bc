"""A shop that sells nothing but orders."""
