"""The option `order_by` of a consumer."""

from __future__ import annotations

from abe_router.backend import Features
from abe_router.config.building.loader import Loader
from abe_router.config.rules.lint import _in_vain

ROUTES = """
backend: memory://
defaults: {order_by: /customer/id}
routes:
  orders.created:
    consumers:
      billing: shop:charge
      ledger: {handler: shop:book, order_by: /account}
      audit: {handler: shop:record, order_by: null}
"""


def table(folder):
    path = folder / "routes.yaml"
    path.write_text(ROUTES)
    return Loader(path, import_handlers=False, env={}).load()


def test_consumer_inherits_or_disables_order_by(tmp_path):
    assert [route.order_by for route in table(tmp_path).routes] == ["/customer/id", "/account", None]


def test_order_by_on_a_backend_without_order_is_a_warning(tmp_path):
    ordered, _, unordered = table(tmp_path).routes
    assert ("order_by", "keeps no order") in _in_vain(ordered, Features(order=False))
    assert not [*_in_vain(unordered, Features(order=False))]
