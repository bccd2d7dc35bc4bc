"""The router of the web process, which only publishes; the command `run_router` consumes."""

from django.conf import settings

from abe_router import Router

router = Router.from_file(settings.BASE_DIR / "routes.yaml", consume=False)
