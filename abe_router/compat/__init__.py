"""The API of Abstract Backend's guide: `load_backend`, `AsyncLoopConsumer`, and `consume`."""
