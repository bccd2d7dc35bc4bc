"""The options `batch` and `rate` of a consumer."""

from __future__ import annotations

import pytest

from abe_router.config.building.loader import Loader
from abe_router.routing.policies import Batch
from abe_router.text import format_rate, parse_rate

FILE = """\
backend: memory://
defaults: {}
routes:
  orders.created:
    consumers:
      billing: {{handler: "shop:charge", {}}}
"""


def route_of(tmp_path, options, defaults="{}"):
    path = tmp_path / "routes.yaml"
    path.write_text(FILE.format(defaults, options))
    (route,) = Loader(path, import_handlers=False, env={}).load().routes
    return route


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", 100), ("90/m", 1.5), ("5000/h", 5000 / 3600), ("0.5/s", 0.5), ("1/h", 1 / 3600)],
)
def test_rate_is_parsed_as_messages_per_second(text, rate):
    assert parse_rate(text) == pytest.approx(rate)
    assert parse_rate(format_rate(rate)) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["100/s", "90/m", "5000/h", "1/h"])
def test_rate_is_formatted_as_it_was_written(text):
    assert format_rate(parse_rate(text)) == text


@pytest.mark.parametrize(
    ("options", "defaults", "batch"),
    [
        ("paused: false", "{}", None),
        ("batch: {}", "{}", Batch(100, 0.05)),
        ("batch: {size: 7}", "{}", Batch(7, 0.05)),
        ("paused: false", "{batch: {size: 7, wait: 1s}}", Batch(7, 1.0)),
        ("batch: {wait: 2s}", "{batch: {size: 7, wait: 1s}}", Batch(7, 2.0)),
        ("batch: null", "{batch: {size: 7}}", None),
    ],
)
def test_omitted_batch_options_come_from_the_defaults(tmp_path, options, defaults, batch):
    assert route_of(tmp_path, options, defaults).batch == batch


def test_null_rate_removes_the_rate_of_the_defaults(tmp_path):
    assert route_of(tmp_path, "paused: false", "{rate: 30/m}").rate == 0.5
    assert route_of(tmp_path, "rate: null", "{rate: 30/m}").rate is None
