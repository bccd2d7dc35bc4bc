from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abe_router.config.building.loader import Loader
from abe_router.config.language.editor import json_schema
from abe_router.config.reading.code import Code
from abe_router.errors import ConfigError, HandlerError
from abe_router.routing.policies import RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable

HANDLERS = """\
async def charge(payload): ...
def record(payload, message): ...
"""
ROUTES = """\
backend: memory://
routes:
  orders.created:
    schema: order.json
    consumers:
      billing: MODULE:charge
      audit: {handler: "MODULE:record", concurrency: 2}
"""
ONE = "backend: memory://\nroutes: {k: {consumers: {g: {handler: 'MODULE:charge', OPTIONS}}}}"


class Place:
    """A folder with a routes file, schemas and a module of handlers, whose name no other test has."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.routes = folder, folder / "routes.yaml"
        self.module = f"handlers_{abs(hash(folder))}"
        (folder / "schemas").mkdir()
        (folder / f"{self.module}.py").write_text(HANDLERS)
        self.schema("order.json", {"type": "object"})
        self.write(ROUTES)

    def write(self, text: str) -> None:
        self.routes.write_text(text.replace("MODULE", self.module))

    def schema(self, name: str, document: object) -> None:
        (self.folder / "schemas" / name).write_text(json.dumps(document))

    def loader(self, **options: object) -> Loader:
        return Loader(self.routes, **{"env": {}, **options})

    def load(self, text: str, **options: object) -> RouteTable:
        self.write(text)
        return self.loader(**options).load()

    def consumer(self, options: str, **more: object) -> Route:
        """Return the route of one consumer with these options, written in flow style."""
        return self.load(ONE.replace("OPTIONS", options), **more).routes[0]

    def codes(self, text: str, **options: object) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(text, **options)
        return [fault.code for fault in caught.value.diagnostics]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path)


# --- what a file becomes


def test_a_file_becomes_a_table_of_routes(place):
    table = place.loader().load()
    assert [route.name for route in table.routes] == ["orders.created/billing", "orders.created/audit"]
    billing, audit = table.routes
    assert (billing.concurrency, audit.concurrency) == (10, 2)
    assert (billing.handler.is_async, audit.handler.is_async) == (True, False)
    assert [c.schema.name for c in billing.bindings] == ["order.json"]
    assert table.keys == ("orders.created",)
    assert table.sources == {place.routes, place.folder / "schemas" / "order.json"}
    assert table.warnings == ()


def test_options_that_are_not_given_have_the_defaults_of_a_route(place):
    route = place.consumer("")
    plain = Route(key="k", group="g", handler=route.handler)
    assert route == plain


def test_every_option_arrives(place):
    route = place.consumer(
        "concurrency: 3, timeout: 5m, lease: 1.5s, drain: 1h, max_deliveries: 9, dead_letter: false,"
        " when: {type: object}, on_invalid: drop, start: latest, paused: true,"
        " retry: {attempts: 2, initial: 250ms, factor: 1.5, max: 2s, jitter: false}"
    )
    assert (route.concurrency, route.timeout, route.lease, route.drain) == (3, 300.0, 1.5, 3600.0)
    assert (route.max_deliveries, route.dead_letter, route.on_invalid, route.paused) == (
        9,
        False,
        "drop",
        True,
    )
    assert route.start == math.inf
    assert route.when is not None
    assert not route.when.is_valid([])
    assert route.retry == RetryPolicy(2, 0.25, 1.5, 2.0, jitter=False)


def test_defaults_are_inherited_option_by_option_and_of_retry_member_by_member(place):
    text = """
backend: memory://
defaults: {concurrency: 3, when: {type: object}, retry: {attempts: 7, max: 9s}}
routes:
  k:
    consumers:
      a: MODULE:charge
      b: {handler: "MODULE:charge", concurrency: 4, when: true, retry: {attempts: 1}}
"""
    a, b = place.load(text).routes
    assert (a.concurrency, a.retry.attempts, a.retry.max) == (3, 7, 9.0)
    assert (b.concurrency, b.retry.attempts, b.retry.max) == (4, 1, 9.0)
    assert [route.when and route.when.is_valid([]) for route in (a, b)] == [False, True]


def test_a_start_is_a_time_with_its_offset(place):
    assert place.consumer("start: '1970-01-02T00:00:00Z'").start == 86_400
    assert place.consumer("start: '1970-01-02T01:00:00+01:00'").start == 86_400
    assert place.consumer("start: earliest").start == 0


def test_a_route_has_the_contract_of_every_entry_that_it_meets(place):
    text = """
backend: memory://
routes:
  a.b: {schema: order.json, consumers: {g: "MODULE:charge"}}
  a.c: {schema: other.json}
  a.*: {schema: any.json, consumers: {h: "MODULE:charge"}}
  x.y:
  "#.b": {consumers: {i: "MODULE:charge"}}
"""
    for name in ("other.json", "any.json"):
        place.schema(name, {"title": name})
    table = place.load(text)
    met = {route.key: [c.schema.name for c in route.bindings] for route in table.routes}
    assert met == {
        "a.b": ["order.json", "any.json"],
        "a.*": ["order.json", "other.json", "any.json"],
        "#.b": ["order.json", "any.json"],
    }
    assert table.contract("x.y").known
    assert [s.name for s in table.contract("a.b").schemas] == ["order.json", "any.json"]


def test_relative_paths_are_those_of_the_file(place, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    table = place.load(ROUTES.replace("memory://", "sqlite:///data%20of/shop.db?synchronous=normal"))
    assert table.backend == f"sqlite:///{place.folder}/data%20of/shop.db?synchronous=normal"
    assert place.load(ROUTES, backend="sqlite:////abs/olute.db").backend == "sqlite:////abs/olute.db"
    monkeypatch.chdir(place.folder.parent)
    assert Loader(Path(place.folder.name, "routes.yaml"), env={}).load().routes


def test_the_backend_is_that_of_the_option_then_the_file_then_the_environment_then_sqlite(place):
    assert place.load(ROUTES, backend="sqlite:////x.db").backend == "sqlite:////x.db"
    silent = ROUTES.replace("backend: memory://\n", "")
    assert place.load(ROUTES, env={"ABE_ROUTER_BACKEND": "sqlite:////x.db"}).backend == "memory://"
    assert place.load(silent, env={"ABE_ROUTER_BACKEND": "memory://"}).backend == "memory://"
    assert place.load(silent).backend == f"sqlite:///{place.folder}/.abe-router.db"


def test_variables_are_replaced_in_values_and_give_them_their_type(place):
    env = {"N": "7", "WORD": "drop", "EMPTY": "", "LIST": "[1, 2]\nroutes: {}"}
    text = """
backend: memory://
routes:
  k:
    consumers:
      g:
        handler: MODULE:charge
        concurrency: ${N}
        max_deliveries: ${EMPTY:-8}
        on_invalid: ${WORD}
        timeout: ${N}m
        drain: ${GONE:-1h}
        when: {const: "${LIST} $${N} $N"}
"""
    (route,) = place.load(text, env=env).routes
    assert (route.concurrency, route.max_deliveries, route.on_invalid) == (7, 8, "drop")
    assert (route.timeout, route.drain) == (420.0, 3600.0)
    assert route.when.is_valid("[1, 2]\nroutes: {} ${N} $N")


def test_what_a_variable_holds_is_never_shown(place):
    secret = "hunter2"
    text = """
backend: ${URL}
formats: ${URL}
routes:
  k: {consumers: {g: {handler: "MODULE:charge", timeout: "${URL}", start: "${URL}", on_invalid: "${URL}"}}}
"""
    place.write(text)
    for url in (f"redsi://:{secret}@host/0", f"redis://:{secret}@host:{secret}/0", f"sqlite://{secret}@host"):
        with pytest.raises(ConfigError) as caught:
            place.loader(env={"URL": url}).load()
        assert len(caught.value.diagnostics) == 5
        assert secret not in repr(caught.value.diagnostics)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ('"2"', "2"),
        ("1e3", 1000.0),
        ("~", None),
        ("2026-01-31", "2026-01-31"),
        ("a b", "a b"),
        ("-.5", -0.5),
    ],
)
def test_scalars_are_those_of_yaml_1_2(place, text, value):
    route = place.consumer(f"when: {{const: {text}}}")
    assert route.when.document == {"const": value}


def test_aliases_stand_for_what_they_name(place):
    text = """
backend: memory://
defaults: {when: &large {properties: {total: {minimum: 100}}}}
routes:
  k: {consumers: {g: {handler: "MODULE:charge", when: *large}}}
"""
    assert place.load(text).routes[0].when.document == {"properties": {"total": {"minimum": 100}}}


def test_an_empty_mapping_of_routes_is_a_table_of_none(place):
    table = place.load("backend: memory://\nroutes: {}\n")
    assert table.routes == ()
    assert [fault.code for fault in table.warnings] == [Code.NOTHING_ROUTED]


# --- loading again


def test_the_same_file_gives_the_same_table_and_the_same_compiled_parts(place):
    loader = place.loader()
    one, two = loader.load(), loader.load()
    assert one.revision == two.revision
    assert not any((two.diff(one).added, two.diff(one).removed, two.diff(one).changed))
    assert one.routes[0].bindings[0].schema is two.routes[0].bindings[0].schema
    assert one.routes[0].handler is two.routes[0].handler


def test_a_schema_edit_alone_changes_the_routes_that_use_it(place):
    text = ROUTES + '  users.created: {schema: user.json, consumers: {g: "MODULE:charge"}}\n'
    place.schema("user.json", {"$ref": "common.json"})
    place.schema("common.json", {"type": "object"})
    place.write(text)
    loader = place.loader()
    one = loader.load()
    place.schema("common.json", {"type": "array"})
    two = loader.load()
    assert one.revision != two.revision
    assert [new.name for _, new in one.diff(two).changed] == ["users.created/g"]
    place.schema("common.json", "no schema")
    with pytest.raises(ConfigError):
        loader.load()
    place.schema("common.json", {"type": "object"})
    assert loader.load().revision == one.revision


def test_the_files_to_watch_include_those_that_are_not_there_yet(place):
    place.write(ROUTES.replace("order.json", "gone.json"))
    loader = place.loader()
    with pytest.raises(ConfigError):
        loader.load()
    assert loader.files == {place.routes, place.folder / "schemas" / "gone.json"}
    place.routes.unlink()
    with pytest.raises(ConfigError):
        loader.load()
    assert place.routes in loader.files


# --- what is refused


def test_every_fault_is_told_at_once(place):
    text = """
backend: redsi://host
schemas: [1]
extra: 1
defaults: {timeout: 30, nonsense: 2}
routes:
  a..b: {}
  k:
    schema: gone.json
    consumers:
      g: nowhere:handler
      h: {handler: "MODULE:gone", concurrency: 0}
      i: {when: {type: strin}, handler: "MODULE:charge"}
"""
    codes = place.codes(text)
    assert codes == ["R401", "R102", "R101", "R103", "R101", "R105", "R201", "R302", "R303", "R104", "R203"]


@pytest.mark.parametrize(
    "word", ["yes", "No", "ON", "off", "010", "0o17", "0x1F", "1_000", "12:30", ".inf", "1e999"]
)
def test_what_readers_of_yaml_disagree_about_is_refused_as_value_and_as_key(place, word):
    assert place.codes(ONE.replace("OPTIONS", f"when: {{const: {word}}}")) == ["R007"]
    assert place.codes(ONE.replace("OPTIONS", f"when: {{{word}: 1}}")) == ["R007"]
    assert place.consumer(f"when: {{const: '{word}', '{word}': 1}}").when.document == {"const": word, word: 1}


def test_a_file_without_routes_is_told_what_else_is_wrong_with_it(place):
    assert place.codes("backend: memory://\nunroutet: allow\ntests: 3") == ["R010", "R101", "R102"]


@pytest.mark.parametrize("name", ["route", "Routes", "ROUTES", "routs", "router"])
def test_what_is_below_a_misspelt_routes_is_checked_as_well(place, name):
    text = f"{name}: {{orders.created: {{consumers: {{billing: nowhere}}}}}}"
    place.write(text)
    with pytest.raises(ConfigError) as caught:
        place.loader().load()
    misspelt, handler = caught.value.diagnostics
    assert (misspelt.message, misspelt.hint) == (f"unknown option `{name}`", "did you mean `routes`?")
    assert (handler.code, handler.column) == ("R301", text.index("nowhere") + 1)


def test_a_number_without_end_is_not_to_be_quoted_where_a_number_stands(place):
    place.write("defaults: {retry: {factor: .inf}}\nroutes: {}")
    with pytest.raises(ConfigError) as caught:
        place.loader().load()
    assert caught.value.diagnostics[0].hint == "quote it if it is text"


def test_a_prefix_that_is_too_long_is_told_its_length(place):
    place.write(f"prefix: {'a' * 65}\nroutes: {{}}")
    with pytest.raises(ConfigError) as caught:
        place.loader().load()
    assert caught.value.diagnostics[0].message == "`prefix` is longer than 64 characters: 65"


def test_a_file_that_everybody_may_write_is_refused_unless_trusted(place):
    place.routes.chmod(0o666)
    assert place.codes(ROUTES) == ["R004"]
    assert place.loader(trust_writable=True).load().routes


def test_handlers_are_limited_to_those_allowed(place):
    assert place.codes(ROUTES, allow_handlers=["shop.*"]) == ["R306", "R306"]
    assert place.codes(ROUTES, allow_handlers=["shop.*"], import_handlers=False) == ["R306", "R306"]
    assert place.loader(allow_handlers=["shop.*", f"{place.module}:*"]).load().routes


def test_without_import_no_code_of_the_users_runs(place):
    (place.folder / "explodes.py").write_text("raise SystemExit('it ran')\n")
    text = ROUTES.replace("MODULE:charge", "explodes:charge")
    table = place.load(text, import_handlers=False)
    with pytest.raises(HandlerError, match="was not imported"):
        table.routes[0].handler.call({})
    assert place.codes(text) == ["R302"]
    assert place.codes(text.replace("explodes:charge", "not a path"), import_handlers=False) == ["R301"]


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.write_bytes(b"#" * 1024 * 1024 + b"\n")]
)
def test_what_is_no_file_of_a_reasonable_size_is_refused_without_waiting(place, make):
    place.routes.unlink()
    make(place.routes)
    with pytest.raises(ConfigError) as caught:
        place.loader().load()
    assert caught.value.diagnostics[0].code in {"R001", "R002"}


@pytest.mark.parametrize("levels", [65, 1000, 100_000])
@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_nesting_without_end_is_a_fault_and_no_crash(place, opening, levels):
    script = f"""
import sys
from pathlib import Path
from abe_router.config.building.loader import Loader
from abe_router.errors import ConfigError
Path("deep.yaml").write_text({opening!r} * {levels})
try:
    Loader(Path("deep.yaml")).load()
except ConfigError as error:
    sys.exit(0 if error.diagnostics[0].code in ("R002", "R006") else 3)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    assert (
        subprocess.run([sys.executable, "-c", script], cwd=place.folder, env=env, check=False).returncode == 0
    )


def test_indented_nesting_is_limited_too(place):
    assert place.codes("".join(f"{' ' * level}a:\n" for level in range(1000))) == ["R002"]


def test_a_bomb_of_aliases_is_a_fault(place):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    assert place.codes(bomb) == ["R002"]
    assert place.codes("a: &a x\nb: [" + "*a, " * 1001 + "]\n") == ["R002"]


def test_aliases_cannot_nest_what_the_limit_of_levels_forbids(place):
    ladder = "a0: &a0 {not: {}}\n" + "".join(
        f"a{n}: &a{n} {'{not: ' * 20}*a{n - 1}{'}' * 20}\n" for n in range(1, 900)
    )
    assert place.codes(ladder) == ["R002"]
    place.write(ladder)
    with pytest.raises(ConfigError) as caught:
        place.loader().load()
    assert caught.value.diagnostics[0].line == 5  # 2 and three times 20 levels stand


def test_a_duplicate_is_told_with_the_line_of_the_first(place):
    place.write("routes: {}\nbackend: memory://\nroutes: {}\n")
    with pytest.raises(ConfigError) as caught:
        place.loader().load()
    (fault,) = (fault for fault in caught.value.diagnostics if fault.code == "R008")
    assert (fault.line, fault.column, fault.width, fault.label) == (3, 1, 6, "first on line 1")


def test_columns_count_characters_whatever_their_width(place):
    place.write('backend: memory://\nroutes: {"k": {schema: "日本/gone.json", consumers: {"é": 3}}}\n')
    with pytest.raises(ConfigError) as caught:
        place.loader().load()
    assert [(f.code, f.column, f.width) for f in caught.value.diagnostics] == [
        ("R201", 24, 14),
        ("R102", 57, 1),
    ]


# --- no input ends in anything but a table or a fault with its place

SEED = ROUTES.replace("MODULE", "shop").replace("{{", "{").replace("}}", "}").encode() + (
    b"defaults: {retry: {attempts: 3, max: 30s}, when: &w {type: object}}\n"
    b'prefix: "shop:"\nunrouted: ${MODE:-allow}\n'
)
WORDS = (
    rb"""{ } [ ] : # * &a *w !!x ' " ${ ${X} ~ on 0 012 1e999 null routes handler $ref 2026-13-45T99:99:99Z"""
)
FRAGMENTS = [
    *WORDS.split(),
    *(b": ", b"- ", b"? ", b"|\n", b">-\n", b"\t", b"\n", b"\r\n", b"\x00", b"\xff", b"\xe2\x80\xa8"),
    *(b"%YAML 9.9\n", b"---\n", b"...\n", b"<<: *w\n", b"\xef\xbb\xbf"),
]
edits = st.lists(
    st.tuples(
        st.integers(0, len(SEED)), st.integers(0, 12), st.sampled_from(FRAGMENTS) | st.binary(max_size=4)
    ),
    min_size=1,
    max_size=4,
)


def mutated(changes: list[tuple[int, int, bytes]]) -> bytes:
    data = SEED
    for start, cut, put in changes:
        data = data[:start] + put + data[start + cut :]
    return data


def outcome(path: Path) -> None:
    """Load, and accept a table, or faults that lie in the file."""
    try:
        Loader(path, import_handlers=False, env={}).load()
    except ConfigError as error:
        lines = path.read_bytes().decode("utf-8", "replace").splitlines() or [""]
        for fault in error.diagnostics:
            assert fault.code in set(Code)
            if fault.path == path:
                assert 1 <= fault.line <= len(lines)
                assert 1 <= fault.column <= len(lines[fault.line - 1]) + 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(edits)
def test_a_mutated_file_is_a_table_or_faults_with_places(place, changes):
    place.routes.write_bytes(mutated(changes))
    outcome(place.routes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_table_or_faults_with_places(place, data):
    place.routes.write_bytes(data)
    outcome(place.routes)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["#", "#/items", "//[", "http://[", "%zz", "any.json", "..", "a b", "object", "("]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["$ref", "$id", "type", "items", "properties", "allOf", "$schema", "pattern", "enum", "#"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(json_values)
def test_any_json_as_schema_is_a_table_or_faults_with_places(place, document):
    place.write("backend: memory://\nroutes: {k: {schema: any.json}}\n")
    place.schema("any.json", document)
    outcome(place.routes)


# --- the JSON Schema for editors


def test_the_json_schema_is_one_and_takes_what_the_loader_takes(place):
    schema = json_schema()
    jsonschema_rs.meta.validate(schema)
    editor = jsonschema_rs.validator_for(schema)
    assert editor.is_valid(
        {"routes": {"k": {"consumers": {"g": "m:f", "h": {"handler": "m:f", "timeout": "3s"}}}}}
    )
    assert editor.is_valid(
        {"routes": {"k": None}, "formats": "${F:-true}", "defaults": {"retry": {"max": "${M}"}}}
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"routes": {}, "extra": 1},
        {"routes": {}, "defaults": {"timeout": 30}},
        {"routes": {}, "defaults": {"handler": "m:f"}},
        {"routes": {"k": {"consumer": {}}}},
        {"routes": {"k": {"consumers": {"g": {"concurrency": 1}}}}},
        {"routes": {"k": {"consumers": {"g": {"handler": "m:f", "retry": {"attempts": 0}}}}}},
        {"routes": {"k": {"consumers": {"g": {"handler": "m:f", "on_invalid": "dead-letter"}}}}},
    ],
)
def test_the_json_schema_refuses_what_the_loader_refuses(place, document):
    assert not jsonschema_rs.validator_for(json_schema()).is_valid(document)
    place.routes.write_text(json.dumps(document))
    with pytest.raises(ConfigError):
        place.loader(import_handlers=False).load()


# --- how long it takes


@pytest.mark.alone
def test_a_thousand_routes_load_in_time_and_an_edit_of_one_in_less(place):
    for number in range(100):
        place.schema(f"s{number}.json", {"properties": {"n": {"minimum": number, "format": "date"}}})
    entries = [
        f"  k{n}.{'*' if n % 50 == 0 else 'created'}:\n    schema: s{n % 100}.json\n    consumers:\n"
        f"      billing: MODULE:charge\n      audit:\n        handler: MODULE:record\n"
        f"        concurrency: 2\n        when: {{properties: {{n: {{minimum: {n}}}}}}}\n"
        for n in range(500)
    ]
    place.write("backend: memory://\nroutes:\n" + "".join(entries))
    loader = place.loader()
    began = time.perf_counter()
    one = loader.load()
    first = time.perf_counter() - began
    place.routes.write_text(place.routes.read_text().replace("concurrency: 2", "concurrency: 3", 1))
    began = time.perf_counter()
    two = loader.load()
    again = time.perf_counter() - began
    assert len(one.routes) == 1000
    assert len(one.diff(two).changed) == 1
    # Generous, for a busy machine: 0.25 s and 0.15 s were measured on two cores.
    assert first < 2
    assert again < 1


TWO_HANDLERS = """\
routes:
  orders.created:
    consumers: {billing: "mended_handlers:charge", audit: "mended_audit:record"}
"""


@pytest.fixture
def mended(tmp_path, monkeypatch):
    """Yield a folder whose routes file names two handlers, and a loader of it."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "routes.yaml").write_text(TWO_HANDLERS)
    (tmp_path / "mended_handlers.py").write_text("def charge(order): return 'first'\n")
    yield tmp_path, Loader(tmp_path / "routes.yaml")
    for module in ("mended_handlers", "mended_audit", "mended_lib"):
        sys.modules.pop(module, None)


def test_nothing_that_a_rejected_file_imported_is_kept(mended):
    folder, loader = mended
    (folder / "mended_lib.py").write_text("other = 1\n")
    (folder / "mended_audit.py").write_text("from mended_lib import name\ndef record(order): return name\n")
    with pytest.raises(ConfigError, match="cannot import name 'name'"):
        loader.load()
    (folder / "mended_lib.py").write_text("name = 'mended'\n")
    (folder / "mended_handlers.py").write_text("def charge(order): return 'second, and longer'\n")
    billing, audit = loader.load().routes
    assert (billing.handler.call({}), audit.handler.call({})) == ("second, and longer", "mended")


def test_a_function_that_was_missing_is_found_once_it_is_written(mended):
    folder, loader = mended
    (folder / "mended_audit.py").write_text("def recrd(order): ...\n")
    with pytest.raises(ConfigError, match="has no function `record`"):
        loader.load()
    (folder / "mended_audit.py").write_text("def record(order): return 'there it is'\n")
    assert loader.load().routes[1].handler.call({}) == "there it is"


def test_a_function_added_to_a_module_that_runs_takes_a_restart_and_the_hint_says_so(mended):
    folder, loader = mended
    (folder / "mended_audit.py").write_text("def record(order): ...\n")
    loader.load()
    with (folder / "mended_audit.py").open("a") as module:
        module.write("async def refund(order): ...\n")
    (folder / "routes.yaml").write_text(TWO_HANDLERS.replace(":record", ":refund"))
    with pytest.raises(ConfigError) as caught:
        loader.load()
    (fault,) = caught.value.diagnostics
    assert "restart" in fault.hint
    assert "--reload-handlers" in fault.hint
    assert "mended_audit" in sys.modules
