"""Abstract Backend's guide: `load_backend`, `AsyncLoopConsumer`, and `consume`, which the contract lacks."""
