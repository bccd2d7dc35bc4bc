"""Hostile routes files and schemas, each up to the largest size that is read.

Each case is the files of a folder. Every one costs a naive reader quadratic or exponential time, or memory.
"""

# ruff: noqa: E501  a case is one line

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

Files = dict[str, str]

#: The largest file that is read, less a margin.
FULL = 1024 * 1024 - 1024
HEAD = "backend: memory://\n"
#: One route with a schema of the case.
WITH_SCHEMA = HEAD + "routes: {k: {schema: s.json, consumers: {g: 'm:f'}}}\n"


def filled(head: str, line: Callable[[int], str], size: int = FULL, tail: str = "") -> str:
    """Return `head`, as many numbered lines as fit into `size`, and `tail`."""
    parts, left, number = [head], size - len(head) - len(tail), 0
    while left > 0:
        text = line(number)
        left -= len(text)
        parts.append(text)
        number += 1
    return "".join([*parts[:-1], tail])


def _schema(document: Any) -> Files:
    return {"routes.yaml": WITH_SCHEMA, "schemas/s.json": json.dumps(document)}


def _schema_text(text: str) -> Files:
    return {"routes.yaml": WITH_SCHEMA, "schemas/s.json": text}


def _routes(text: str) -> Files:
    return {"routes.yaml": text}


def _consumers(options: Callable[[int], str], count: int = 10**9) -> Files:
    """Return a file of routes `kN`, each with the options of its number."""
    head = HEAD + "routes:\n"
    line = lambda n: f" k{n}: {{consumers: {{g: {{handler: 'm:f', {options(n)}}}}}}}\n"  # noqa: E731
    if count < 10**9:
        return _routes(head + "".join(map(line, range(count))))
    return _routes(filled(head, line))


def _stars(number: int) -> str:
    return "#.*." * 60 + f"x{number}"


LONG = "a" * (FULL - 200)


def scalars() -> Iterator[tuple[str, Files]]:
    """Yield files with one value of a megabyte, in each position that takes text."""
    text = {
        "handler": "routes: {k: {consumers: {g: 'LONG'}}}",
        "handler-dots": "routes: {k: {consumers: {g: 'DOTS:f'}}}",
        "schema": "routes: {k: {schema: LONG, consumers: {g: 'm:f'}}}",
        "schemas": "schemas: LONG\nroutes: {k: {schema: s.json, consumers: {g: 'm:f'}}}",
        "emit": "routes: {k: {consumers: {g: {handler: 'm:f', emit: LONG}}}}",
        "emit-dots": "routes: {k: {consumers: {g: {handler: 'm:f', emit: DOTS}}}}",
        "order": "routes: {k: {consumers: {g: {handler: 'm:f', order_by: SLASHES}}}}",
        "id": "routes: {k: {id: SLASHES, consumers: {g: 'm:f'}}}",
        "id-bad": "routes: {k: {id: 'a LONG', consumers: {g: 'm:f'}}}",
        "key": "routes: {? LONG : {consumers: {g: 'm:f'}}}",
        "option": "? LONG : 1\nroutes: {}",
        "prefix": "prefix: LONG\nroutes: {}",
        "backend": "backend: 'LONG://x'\nroutes: {}",
        "backend-colons": "backend: 'COLONS'\nroutes: {}",
        "backend-ats": "backend: 'redis://ATS'\nroutes: {}",
        "backend-query": "backend: 'redis://h/?QUERY'\nroutes: {}",
        "timeout": "defaults: {timeout: ONES}\nroutes: {}",
        "timeout-text": "defaults: {timeout: LONG}\nroutes: {}",
        "rate": "defaults: {rate: '1/LONG'}\nroutes: {}",
        "start": "defaults: {start: LONG}\nroutes: {}",
        "concurrency": "defaults: {concurrency: ONES}\nroutes: {}",
        "underscores": "defaults: {concurrency: 1UNDERx}\nroutes: {}",
        "sexagesimal": "defaults: {concurrency: 1CLOCKx}\nroutes: {}",
        "spaces": "defaults: {timeout: '1SPACESx!'}\nroutes: {}",
        "when-pattern": "routes: {k: {consumers: {g: {handler: 'm:f', when: {pattern: LONG}}}}}",
        "when-ref": "routes: {k: {consumers: {g: {handler: 'm:f', when: {$ref: SLASHES}}}}}",
        "when-schema": "routes: {k: {consumers: {g: {handler: 'm:f', when: {$schema: LONG}}}}}",
        "variable": "backend: '${A:-LONG}://x'\nroutes: {}",
        "open-variables": "backend: 'OPENS'\nroutes: {}",
        "comment": "COMMENT\nroutes: {}",
        "one-line-of-options": None,
    }
    fill = {
        "LONG": LONG,
        "DOTS": "a." * (len(LONG) // 2) + "a",
        "SLASHES": "/a" * (len(LONG) // 2),
        "COLONS": "x" + "://a" * (len(LONG) // 4),
        "ATS": ":@" * (len(LONG) // 2),
        "QUERY": "&".join(f"a{n}=1" for n in range(len(LONG) // 10)),
        "ONES": "1" * len(LONG),
        "UNDER": "_1" * (len(LONG) // 2),
        "CLOCK": ":1" * (len(LONG) // 2),
        "SPACES": " " * len(LONG),
        "OPENS": "${A:-" * (len(LONG) // 5),
        "COMMENT": "#." + "a:" * (len(LONG) // 2) + "x",
    }
    for name, routes in text.items():
        if routes is None:
            continue
        for word, value in fill.items():
            routes = routes.replace(word, value)
        yield f"scalar-{name}", _routes(routes if routes.startswith("backend") else HEAD + routes)


def many() -> Iterator[tuple[str, Files]]:
    """Yield files with thousands of entries or faults."""
    head = HEAD + "routes:\n"
    yield "plain-routes", _routes(filled(head, lambda n: f" k{n}: {{consumers: {{g: 'm:f'}}}}\n"))
    yield (
        "patterns-of-stars",
        _routes(filled(head, lambda n: f" '{_stars(n)}': {{consumers: {{g: 'm:f'}}}}\n")),
    )
    yield (
        "patterns-of-400-stars",
        _routes(head + "".join(f" '{_stars(n)}': {{consumers: {{g: 'm:f'}}}}\n" for n in range(400))),
    )
    yield "short-patterns", _routes(filled(head, lambda n: f" '*.a{n}': {{consumers: {{g: 'm:f'}}}}\n"))
    yield (
        "patterns-with-schemas",
        {
            **_routes(filled(head, lambda n: f" '#.a{n}': {{schema: s.json, consumers: {{g: 'm:f'}}}}\n")),
            "schemas/s.json": "true",
        },
    )
    yield (
        "keys-and-patterns",
        {
            **_routes(
                filled(
                    head,
                    lambda n: (
                        f" {'k' if n % 2 else chr(39) + '#.'}{n}{'' if n % 2 else chr(39)}: {{schema: s.json, consumers: {{g: 'm:f'}}}}\n"
                    ),
                )
            ),
            "schemas/s.json": "true",
        },
    )
    yield (
        "ids-of-patterns",
        _routes(filled(head, lambda n: f" '#.a{n}': {{id: /i{n}, consumers: {{g: 'm:f'}}}}\n")),
    )
    yield "ids-of-keys", _routes(filled(head, lambda n: f" k{n}: {{id: /i{n}, consumers: {{g: 'm:f'}}}}\n"))
    yield "unknown-emits", _consumers(lambda n: f"emit: j{n}")
    yield "unknown-emits-1000", _consumers(lambda n: f"emit: j{n}", 1000)
    yield "one-cycle", _consumers(lambda n: f"emit: k{n + 1 if n < 10000 else 0}")
    yield (
        "emit-chain",
        _routes(
            filled(
                head,
                lambda n: f" k{n}: {{consumers: {{g: {{handler: 'm:f', emit: k{n + 1}}}}}}}\n",
                tail=" '#': {}\n",
            )
        ),
    )
    yield (
        "emit-to-one",
        _routes(
            filled(
                head + " k: {consumers: {", lambda n: f"g{n}: {{handler: 'm:f', emit: k}},\n  ", tail="}}\n"
            )
        ),
    )
    yield "unknown-options-on-lines", _routes(filled(HEAD + "routes: {}\n", lambda n: f"backnd{n}: 1\n"))
    yield (
        "unknown-options-on-one-line",
        _routes(filled("{backend: 'memory://', routes: {}, ", lambda n: f"a{n}: 1, ", tail="}")),
    )
    yield (
        "wrong-values-on-one-line",
        _routes(
            filled(
                HEAD + "routes: {k: {consumers: {",
                lambda n: f"g{n}: {{handler: 'm:f', concurrency: x}}, ",
                tail="}}}\n",
            )
        ),
    )
    yield "duplicate-keys", _routes(filled(HEAD + "routes: {}\n", lambda n: "a: 1\n"))
    yield "duplicate-keys-on-one-line", _routes(filled("{", lambda n: "a: 1, ", tail="}"))
    yield "ambiguous", _routes(filled(HEAD + "x: [", lambda n: "0o7, ", tail="]\nroutes: {}\n"))
    yield (
        "unset-variables",
        _routes(filled(HEAD + "x: [", lambda n: f"'${{NO{n}}}', ", tail="]\nroutes: {}\n")),
    )
    yield "large-variable", _routes(filled(HEAD + "x: '", lambda n: "${LARGE}", tail="'\nroutes: {}\n"))
    yield "large-variables", _routes(filled(HEAD + "x: [", lambda n: "'${LARGE}', ", tail="]\nroutes: {}\n"))
    yield "tags", _routes(filled(HEAD + "x: [", lambda n: "!t 1, ", tail="]\nroutes: {}\n"))
    yield "merge-keys", _routes(filled(HEAD + "x: [", lambda n: "{<<: 1}, ", tail="]\nroutes: {}\n"))
    yield (
        "comments-like-patterns",
        _routes(filled(HEAD + "routes:\n", lambda n: " #.a: {}\n", tail=" k: {}\n")),
    )
    yield "brackets", _routes("[" * FULL)
    yield "braces", _routes("{a: " * (FULL // 4))
    yield "question-marks", _routes("? " * (FULL // 2))
    yield "dashes", _routes("- " * (FULL // 2))
    yield "anchors", _routes(filled("x: [", lambda n: f"&a{n} b, ", tail="]\nroutes: {}\n"))
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
    )
    yield "alias-bomb", _routes(bomb)
    yield (
        "cases-of-unknown-routes",
        _routes(
            filled(
                HEAD
                + "routes:\n"
                + "".join(f" k{n}: {{consumers: {{g: 'm:f'}}}}\n" for n in range(5000))
                + "tests:\n",
                lambda n: f" c{n}: {{publish: {{key: k1, payload: 1}}, handled: j{n}/g}}\n",
            )
        ),
    )
    yield (
        "cases-of-many-routes",
        _routes(
            filled(
                HEAD
                + "routes:\n"
                + "".join(f" k{n}: {{consumers: {{g: 'm:f'}}}}\n" for n in range(5000))
                + "tests:\n",
                lambda n: f" c{n}: {{publish: {{key: k{n % 5000}, payload: 1}}, handled: k{n % 5000}/g}}\n",
            )
        ),
    )
    yield (
        "missing-schemas",
        _routes(filled(head, lambda n: f" k{n}: {{schema: s{n}.json, consumers: {{g: 'm:f'}}}}\n")),
    )
    yield "whens", _consumers(lambda n: f"when: {{const: {n}}}")
    yield (
        "whens-of-a-large-schema",
        {
            **_consumers(lambda n: f"when: {{$ref: big.json, title: t{n}}}"),
            "schemas/big.json": json.dumps(
                {"properties": {f"p{n}": {"type": "integer"} for n in range(30_000)}}
            ),
        },
    )
    yield "whens-with-faults", _consumers(lambda n: f"when: {{type: t{n}}}")
    yield (
        "deep-yaml-in-when",
        _routes(
            HEAD
            + "routes: {k: {consumers: {g: {handler: 'm:f', when: "
            + "{not: " * 55
            + "{type: x}"
            + "}" * 55
            + "}}}}"
        ),
    )


def schemas() -> Iterator[tuple[str, Files]]:
    """Yield schemas that are expensive to parse, to check, to compile or to explain."""
    yield "escaped-quotes", _schema_text("[" * 200 + '"' + '\\"' * 400_000)
    yield "open-strings", _schema_text("[" * 200 + '"a' * 300_000)
    yield "brackets-in-a-schema", _schema_text("[" * FULL)
    yield "long-string", _schema({"title": LONG})
    yield "long-type", _schema({"type": LONG})
    yield "long-escapes", _schema({"title": "\\" * (FULL // 2 - 100)})
    yield (
        "long-name-twice",
        _schema_text('{"' + LONG[: FULL // 2 - 50] + '": 1, "' + LONG[: FULL // 2 - 50] + '": 2}'),
    )
    yield "unevaluated-ladder", _schema(ladder("unevaluatedProperties", 6, 6))
    yield "unevaluated-items-ladder", _schema(ladder("unevaluatedItems", 6, 6))
    yield "any-ladder", _schema(ladder("unevaluatedProperties", 6, 6, "anyOf"))
    yield "doubled-ladder", _schema(ladder("unevaluatedProperties", 2, 60))
    yield "nested-unevaluated", _schema(nested_unevaluated(60))
    yield "all-ladder", _schema(ladder("", 10, 60))
    yield (
        "references-chain",
        _schema(
            {
                "$ref": "#/$defs/d0",
                "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(15_000)} | {"d15000": True},
            }
        ),
    )
    yield (
        "references-cycle",
        _schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    )
    yield (
        "references-to-nothing",
        _schema({"allOf": [{"$ref": f"#/$defs/x{n}"} for n in range(25_000)], "$defs": {"y": {}}}),
    )
    yield (
        "references-to-nothing-1500",
        _schema(
            {
                "allOf": [{"$ref": f"#/$defs/x{n}"} for n in range(1500)],
                "$defs": {f"y{n}": {} for n in range(1500)},
            }
        ),
    )
    yield "references-to-missing-files", _schema({"allOf": [{"$ref": f"x{n}.json"} for n in range(30_000)]})
    yield "references-to-identifiers", _schema({"allOf": [{"$ref": f"http://x/{n}"} for n in range(30_000)]})
    yield "deep-reference-to-nothing", _schema(deep_leaves({"$ref": "#/nothing"}))
    yield "faults", _schema({"allOf": [1] * 300_000})
    yield "long-faults", _schema({"properties": {f"p{n}": {"required": "x" * 40} for n in range(12_000)}})
    yield "nested-faults", _schema(deep_leaves({"type": 1}))
    yield "nested-any-faults", _schema(nested({"allOf": [1, 2]}, 100, "anyOf"))
    yield "large-patterns", _schema({"allOf": [{"pattern": f"(a{{900}}){{10}}{n}"} for n in range(25_000)]})
    yield "nested-repetition", _schema({"pattern": "(((((a{0,100}){0,100}){0,100}){0,100}){0,100})"})
    yield (
        "catastrophic-patterns",
        _schema({"allOf": [{"pattern": f"^(a+)+(?!b){n}$"} for n in range(20_000)]}),
    )
    yield (
        "unicode-classes",
        _schema({"allOf": [{"pattern": f"\\w{{30}}\\W{{30}}{n}"} for n in range(25_000)]}),
    )
    yield "alternation", _schema({"pattern": "|".join(f"a{n}b" for n in range(120_000))})
    yield "open-groups", _schema({"pattern": "(" * 500_000})
    yield "enum", _schema({"enum": list(range(140_000))})
    yield "names", _schema({"properties": {f"p{n}": {} for n in range(70_000)}})
    yield "identifiers", _schema({"$defs": {f"d{n}": {"$id": f"i{n}.json"} for n in range(25_000)}})
    yield "anchors-in-a-schema", _schema({"$defs": {f"d{n}": {"$anchor": f"a{n}"} for n in range(25_000)}})
    yield (
        "dynamic",
        _schema(
            {
                "$dynamicRef": "#a",
                "$defs": {f"d{n}": {"$dynamicAnchor": "a", "$dynamicRef": "#a"} for n in range(15_000)},
            }
        ),
    )
    yield "sensitive", _schema({"properties": {f"p{n}": {"x-sensitive": True} for n in range(30_000)}})
    yield (
        "many-files",
        {
            "routes.yaml": HEAD
            + "routes: {k: {consumers: {g: {handler: 'm:f', when: {$ref: 'http://x/y'}}}}}\n",
            **{
                f"schemas/{n}.json": json.dumps({"$id": f"http://z/{n}", "enum": list(range(70_000))})
                for n in range(40)
            },
        },
    )


def ladder(last: str, width: int, height: int, keyword: str = "allOf") -> dict[str, Any]:
    """Return a schema whose levels each refer `width` times to the next: `width ** height` ways down."""
    levels: dict[str, Any] = {
        f"l{n}": {keyword: [{"$ref": f"#/$defs/l{n + 1}"} for _ in range(width)]} for n in range(height)
    }
    levels[f"l{height}"] = {"properties": {"a": True}, "prefixItems": [True]}
    return {"$ref": "#/$defs/l0", **({last: False} if last else {}), "$defs": levels}


def nested_unevaluated(depth: int) -> dict[str, Any]:
    """Return subschemas of which each asks for what all below it evaluate."""
    schema: dict[str, Any] = {"properties": {"a": True}, "unevaluatedProperties": False}
    for _ in range(depth):
        schema = {"allOf": [schema, {"properties": {"b": True}}], "unevaluatedProperties": False}
    return schema


def nested(leaf: Any, depth: int, keyword: str) -> Any:
    """Return a leaf below `depth` keywords."""
    for _ in range(depth // 2):
        leaf = {keyword: [leaf]}
    return leaf


def deep_leaves(leaf: Any) -> Any:
    """Return a schema of a megabyte whose leaves are all at the greatest depth."""
    count = (FULL - 2000) // (len(json.dumps(leaf)) + 8)
    return nested({"properties": {f"{n:x}": leaf for n in range(count)}}, 120, "allOf")


def cases() -> Iterator[tuple[str, Files]]:
    """Yield every case with its name, one at a time, because they are large."""
    yield from scalars()
    yield from many()
    yield from schemas()
