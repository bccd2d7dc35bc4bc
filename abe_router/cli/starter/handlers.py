"""Handlers: plain functions of a payload. Async ones work too."""


def greet(greeting: dict[str, str]) -> None:
    """Print a greeting."""
    print(f"hello, {greeting['name']}", flush=True)
