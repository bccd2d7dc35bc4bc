"""Log lines: one sentence per event, no payloads, no credentials, no control characters."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from abe_router.diagnostic import Diagnostic, Severity, render_all
from abe_router.observe import events as events
from abe_router.observe.events import (
    BackendBack,
    BackendLost,
    ConsumerStarted,
    ConsumerStopped,
    DeadLettered,
    Event,
    Events,
    Handled,
    Reloaded,
    ReloadRejected,
    Retried,
    RouterStopped,
    Skipped,
)
from abe_router.observe.logs import (
    MAX_TEXT,
    JSONFormatter,
    PlainFormatter,
    TextFormatter,
    log_event,
    log_listener,
    start_logging,
)
from abe_router.text import format_duration, printable

FAULT = Diagnostic(Path("routes.yaml"), 3, 5, "R101", Severity.ERROR, "unknown option `concurency`", hint="?")
EXAMPLES = {
    "str": "x",
    "int": 2,
    "float": 0.5,
    "bool": True,
    "Path": Path("shop.py"),
    "tuple[str, ...]": ("a/b",),
    "tuple[Diagnostic, ...]": (FAULT,),
}
KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)][1:]


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def lines(formatter: logging.Formatter, *emitted: Event, level: int = logging.INFO) -> str:
    stream = io.StringIO()
    start_logging(stream, level, formatter)
    listening = Events([log_listener(level)])
    for event in emitted:
        listening.emit(event)
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_has_a_sentence_and_a_json_form(kind: type[Event]) -> None:
    event = kind(**{name: EXAMPLES[kind_] for name, kind_ in kind.__annotations__.items()})
    assert lines(TextFormatter(), event, level=logging.DEBUG)
    record = json.loads(lines(JSONFormatter(), event, level=logging.DEBUG))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["ts"])
    assert {"ts", "level", "event", "message"} | set(kind.__struct_fields__) == set(record)


def test_a_text_line_has_time_level_route_and_sentence() -> None:
    line = lines(TextFormatter(), BackendBack("orders.created/billing", 1.0))
    assert re.fullmatch(r"\d\d:\d\d:\d\d info     orders.created/billing   backend back after 1s\n", line)


def test_the_column_of_routes_is_as_wide_as_the_longest() -> None:
    long = "a.very.long.key.indeed/with-a-group"
    first, second = lines(TextFormatter(), *(BackendBack(r, 1.0) for r in (long, "a/b"))).splitlines()
    assert first.index("backend") == second.index("backend")


def test_handled_messages_are_logged_only_at_debug() -> None:
    assert not Events([log_listener(logging.INFO)]).wants_handled
    assert Events([log_listener(logging.DEBUG)]).wants_handled
    assert "handled k 7 in 12ms" in lines(
        TextFormatter(), Handled("k/g", "7", "k", 1, 0.012), level=logging.DEBUG
    )


def test_a_filtered_message_is_logged_only_at_debug_and_a_dropped_one_always() -> None:
    assert lines(TextFormatter(), Skipped("k/g", "7", "k", "when")) == ""
    assert "dropped k 7: invalid" in lines(TextFormatter(), Skipped("k/g", "7", "k", "invalid"))


def test_text_from_outside_can_neither_forge_a_line_nor_control_the_terminal() -> None:
    evil = "boom\n12:00:00 info all is well\x1b[2J\u202egpj\u2028\x07\ud800"
    text = lines(TextFormatter(), Retried("k/g", evil, "k", 1, 0.2, "failed", evil))
    assert len(text.splitlines()) == 1
    assert text[:-1].isprintable()
    assert r"boom\n12:00:00 info all is well\x1b[2J\u202egpj\u2028\x07\ud800" in text


def test_json_keeps_text_from_outside_unchanged_and_on_one_line() -> None:
    evil = "boom\n\x1b[2J\u202e"
    text = lines(JSONFormatter(), Retried("k/g", evil, "k", 1, 0.2, "failed", evil))
    assert text.isascii()
    assert len(text.splitlines()) == 1
    assert json.loads(text)["message_id"] == evil


@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter()])
def test_credentials_are_masked(formatter: logging.Formatter) -> None:
    text = lines(formatter, BackendLost("k/g", "no answer from redis://user:s3cret@host/0", 1.0))
    assert "s3cret" not in text
    assert "redis://***@host/0" in text


@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter()])
def test_a_value_that_breaks_its_schema_is_not_logged(formatter: logging.Formatter) -> None:
    error = 'PayloadInvalid: at /name: maxLength: expected at most 3, found "Ada Lovelace"'
    text = lines(formatter, DeadLettered("k/g", "7", "k", 1, "invalid", error))
    assert "at /name: maxLength: expected at most 3" in text
    assert "Ada" not in text


@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter()])
@pytest.mark.parametrize("kind", [DeadLettered, Retried])
def test_a_value_that_a_handler_emits_is_not_logged(formatter: logging.Formatter, kind: type[Event]) -> None:
    said = 'PayloadInvalid: payload for `t` is invalid: at /n: type: expected number, found "Ada Lovelace"'
    trace = f"Traceback (most recent call last):\n  x\nabe_router.errors.{said}\n  | {said}\n"
    number = (True,) if kind is DeadLettered else ()
    event = kind("k/g", "7", "k", 1, *(("failed", said, *number) if number else (0.5, "failed", said)), trace)
    text = lines(formatter, event)
    assert "at /n: type: expected number" in text
    assert "Ada" not in text


def test_long_errors_are_cut() -> None:
    text = lines(TextFormatter(), DeadLettered("k/g", "7", "k", 1, "failed", "x" * 10_000))
    assert len(text) < MAX_TEXT + 100


def test_a_rejected_edit_is_printed_as_check_prints_it() -> None:
    text = lines(TextFormatter(), ReloadRejected((FAULT,)))
    assert text.partition("\n")[2] == render_all([FAULT]) + "\n"
    record = json.loads(lines(JSONFormatter(), ReloadRejected((FAULT,))))
    assert record["diagnostics"] == [FAULT.to_json()]


def formatted_by_another_program(*emitted: Event) -> str:
    return lines(logging.Formatter("%(levelname)s %(name)s: %(message)s"), *emitted)


def test_a_foreign_formatter_shows_the_route() -> None:
    text = formatted_by_another_program(BackendBack("orders.created/billing", 1.0))
    assert text == "INFO abe_router: orders.created/billing: backend back after 1s\n"


def test_a_foreign_formatter_shows_the_diagnostics_of_a_rejected_edit() -> None:
    text = formatted_by_another_program(ReloadRejected((FAULT,)))
    assert text == f"ERROR abe_router: edit rejected, nothing changed\n{render_all([FAULT])}\n"


def test_a_foreign_formatter_gets_neither_credentials_nor_control_characters() -> None:
    text = formatted_by_another_program(BackendLost("k/g", "redis://me:s3cret@host\n\x1b[2J", 1.0))
    assert text.endswith(r"redis://***@host\n\x1b[2J" + "\n")
    assert len(text.splitlines()) == 1


def test_a_record_has_its_event(caplog: pytest.LogCaptureFixture) -> None:
    event = BackendBack("k/g", 1.0)
    with caplog.at_level(logging.INFO):
        log_event(event)
    assert [record.event for record in caplog.records] == [event]  # type: ignore[attr-defined]


def test_a_reload_lists_the_routes_that_it_changed() -> None:
    reloaded = Reloaded(
        3, "abc", ("a/new",), (), ("a/b",), 4, 0.012, ("added a/new", "changed a/b (rate none -> 1/m)")
    )
    assert "reload 3 in 12ms: added a/new; changed a/b (rate none -> 1/m); 4 routes kept" in lines(
        TextFormatter(), reloaded
    )


@pytest.mark.parametrize(("routes", "named"), [(2, ": k0/g, k1/g"), (3000, "")])
def test_a_start_and_a_stop_are_one_line_each_whatever_the_number_of_routes(routes: int, named: str) -> None:
    names = tuple(f"k{number}/g" for number in range(routes))
    text = lines(
        logging.Formatter("%(message)s"),
        *(ConsumerStarted(name, "h") for name in names),
        Reloaded(1, "abc", names, (), (), 0, 0.01),
        *(ConsumerStopped(name, 0, 0, 0.01) for name in names),
        RouterStopped(routes, 0, 0, 0.01),
    )
    counted = f"{routes:,} routes"
    assert text.splitlines() == [f"running {counted}{named}", f"{counted} stopped in 10ms, 0 released"]


def test_a_handler_that_a_consumer_leaves_running_is_a_warning() -> None:
    assert "warning" in lines(TextFormatter(), ConsumerStopped("k/g", 0, 1, 30.0))


def test_records_of_other_loggers_have_the_same_form() -> None:
    stream = io.StringIO()
    start_logging(stream, logging.INFO, JSONFormatter())
    try:
        raise ValueError("boom at http://me:s3cret@host/")
    except ValueError:
        logging.getLogger("shop").exception("cannot charge %s", 7)
    record = json.loads(stream.getvalue())
    assert (record["event"], record["logger"], record["message"]) == ("log", "shop", "cannot charge 7")
    assert "ValueError: boom at http://***@host/" in record["traceback"]


def test_a_traceback_is_indented() -> None:
    stream = io.StringIO()
    start_logging(stream, logging.INFO, TextFormatter())
    try:
        raise ValueError("one\n12:00:00 info two")
    except ValueError:
        logging.getLogger("shop").exception("failed")
    head, *rest = stream.getvalue().splitlines()
    assert head.endswith("failed")
    assert rest
    assert all(line.startswith("  ") for line in rest)


def test_a_plain_line_has_level_and_message() -> None:
    stream = io.StringIO()
    start_logging(stream, logging.WARNING, PlainFormatter())
    logging.getLogger("shop").warning("lost redis://me:s3cret@host\n")
    assert stream.getvalue() == "warning: lost redis://***@host\\n\n"


def test_levels_are_colored_only_on_request() -> None:
    event = BackendBack("k/g", 1.0)
    assert "\033[" not in lines(TextFormatter(), event)
    assert "\033[32minfo" in lines(TextFormatter(color=True), event)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.2, "200ms"),
        (0.0123456, "12.35ms"),
        (1.5, "1.5s"),
        (30, "30s"),
        (90, "90s"),
        (300, "5m"),
        (7200, "2h"),
    ],
)
def test_durations_have_the_form_of_the_routes_file(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_printable_text_is_unchanged() -> None:
    assert printable("Grüße, 世界 🎉") == "Grüße, 世界 🎉"


def test_an_event_without_a_sentence_is_not_logged() -> None:
    log_event(Event())


def test_an_outage_of_a_thousand_routes_has_one_line_at_its_start_and_one_at_its_end() -> None:
    lost = [BackendLost(f"k{n}/g", "no answer", 0.1) for n in range(1000)]
    back = [BackendBack(f"k{n}/g", 3.0) for n in range(1000)]
    logged = lines(TextFormatter(), *lost, *back, *lost).splitlines()
    assert [line.split()[2] for line in logged] == ["k0/g"] * 3
    assert ["lost" in line for line in logged] == [True, False, True]
    assert len(lines(TextFormatter(), *lost, *back, level=logging.DEBUG).splitlines()) == 2000


def test_outages_with_different_errors_have_lines_of_their_own() -> None:
    logged = lines(
        TextFormatter(),
        BackendLost("a/g", "no answer", 0.1),
        BackendLost("b/g", "wrong type", 0.1),
        BackendBack("b/g", 1.0),
        BackendBack("a/g", 2.0),
    )
    assert [line.split()[2] for line in logged.splitlines()] == ["a/g", "b/g", "b/g", "a/g"]
