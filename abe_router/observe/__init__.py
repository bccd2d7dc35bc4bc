"""Events and the listeners that render them. Code that is observed imports `events` alone."""
