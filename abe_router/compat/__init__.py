"""Abstract Backend's guide: `load_backend`, `AsyncLoopConsumer`, `consume`."""
