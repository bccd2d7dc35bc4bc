"""Handlers: plain functions that take a payload. They may be async."""


def greet(greeting: dict[str, str]) -> None:
    """Print a greeting."""
    print(f"hello, {greeting['name']}", flush=True)
