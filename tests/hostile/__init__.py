"""Files of a stranger that try to make `check` take for ever, fill memory, or print what it must not."""
