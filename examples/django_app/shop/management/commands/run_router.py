"""`manage.py run_router`: runs the consumers of routes.yaml."""

import asyncio
import signal

from django.conf import settings
from django.core.management.base import BaseCommand

from abe_router import Router


class Command(BaseCommand):
    """Consume until SIGTERM or SIGINT, then finish the running handlers."""

    help = __doc__

    def handle(self, **_: object) -> None:
        """Run the command."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with Router.from_file(settings.BASE_DIR / "routes.yaml") as router:
            self.stdout.write(f"running {len(router.table.routes)} routes")
            await stop.wait()
