#!/bin/sh
# Runs the example from end to end: publish, handle all messages, show the result.
set -eu
router=$1
cd "$(dirname "$0")/.."

say() { printf '\n$ %s\n' "$*"; }

say abe-router check
"$router" check
say abe-router publish --ndjson examples/orders.ndjson
"$router" publish --ndjson examples/orders.ndjson
say "abe-router publish orders.created '{\"id\": 4, \"total\": -1}'"
"$router" publish orders.created '{"id": 4, "total": -1}' || echo "(refused: nothing entered the queue)"
say abe-router serve --once --log-format text
"$router" serve --once --log-format text
say abe-router status
"$router" status
say abe-router dead list
"$router" dead list
