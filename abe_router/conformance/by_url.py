"""The suite for the provider of `pytest --abe-backend URL`; collected by the plugin."""

from __future__ import annotations

import pytest

from abe_router.conformance import BackendConformance


class TestBackend(BackendConformance):
    """Every test of the suite, against the backend at the URL."""

    @pytest.fixture(autouse=True)
    def _settings(self, pytestconfig: pytest.Config) -> None:
        url: str | None = pytestconfig.getoption("--abe-backend")
        if not url:
            pytest.skip("needs --abe-backend URL")
        self.url = url
        self.lease = pytestconfig.getoption("--abe-lease")
