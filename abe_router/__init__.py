"""Declarative, YAML-configured message routing."""
