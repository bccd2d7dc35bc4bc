"""What an ASGI server runs: Django, and the router for as long as the server lives."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django_application = get_asgi_application()

from shop.router import router  # noqa: E402  it needs the settings

application = router.asgi(django_application)
