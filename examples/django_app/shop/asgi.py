"""The ASGI application: Django, and the router as long as the server runs."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django_application = get_asgi_application()

from shop.router import router  # noqa: E402  it needs Django's settings

application = router.asgi(django_application)
