"""Events, and the listeners that render them. Code that emits events imports `events` only."""
