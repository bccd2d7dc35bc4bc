"""The application of the example: a shop with orders."""
