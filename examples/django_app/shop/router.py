"""The router of the web process: it publishes, and leaves the consuming to `run_router`."""

from django.conf import settings

from abe_router import Router

router = Router.from_file(settings.BASE_DIR / "routes.yaml", consume=False)
