"""What a provider of a backend is tested with; see `abe_router.testing.conformance`."""
