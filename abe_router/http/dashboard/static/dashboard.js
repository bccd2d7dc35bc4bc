// Makes an open page live. Every page works without it.
//
// Attributes that a page uses:
// - `data-live` on an element with an id: it is replaced by that of a new answer for the same address, when
//   the event stream says that more than numbers have changed, or every 15 seconds with `data-live="15"`.
// - `data-route` on an element: the route that its `data-cell`s are about. A `data-cell` is a figure of the
//   stream: rate, backlog, oldest, p50, p99, retried, dead, in_flight. `data-condition` is the kind of condition,
//   whose texts are in `b` and `.s` of its `.state`.
// - `data-trouble="2"`: what the stream says about the workers, with the class `warn`; two are running.
// - `data-sum`: the sum of all routes that the caller may see: rate, backlog, paused, retried, dead.
// - `data-check` and `data-into` on a form: see checkWhileTyping. `data-tail` and `data-slot`: see followTail.
// - `data-opens` on a button, hidden without scripts: the id of a dialog.
const body = document.body;
const root = body.dataset.root;
const find = (css, within = document) => within.querySelector(css);
const isField = (element) => /^(INPUT|SELECT|TEXTAREA)$/.test(element.tagName);
const all = (css, within = document) => [...within.querySelectorAll(css)];

// Numbers, as formats.py writes them: the text, its unit, and whether it is muted.
const numbers = [0, 1, 2].map((digits) => {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat("en-US", options).format;
});
const short = (amount) => (amount < 10 ? amount.toFixed(1).replace(/\.0$/, "") : numbers[0](amount));
const unknown = ["–", "", true];
const formats = {
  count: (value) => (value == null ? unknown : [numbers[0](value), "", !value]),
  rate: (value) =>
    value < 0.005 ? ["0", "", true] : [numbers[value >= 100 ? 0 : value >= 0.1 ? 1 : 2](value), "", false],
  duration(value) {
    if (value == null) return unknown;
    if (!value) return ["0", "s", true];
    const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([size]) => value >= size) || [0.001, "ms"];
    return [short(value / size), unit, false];
  },
};
const kinds = { rate: "rate", p50: "duration", p99: "duration", oldest: "duration" };

/** Write a figure into a cell, if it is another one than before. */
function show(cell, name, value) {
  const [text, unit, muted] = formats[kinds[name] || "count"](value);
  const place = find("a", cell) || cell;
  if (place.textContent.trim() === (unit ? `${text} ${unit}` : text)) return;
  const small = document.createElement("small");
  small.textContent = unit;
  place.replaceChildren(unit ? `${text} ` : text, ...(unit ? [small] : []));
  place.classList.toggle("zero", muted);
}

// ---- Parts of the page that are replaced ----

/** Make an element like another one, and keep what the reader did in it. */
function morph(old, fresh) {
  if (old.isEqualNode(fresh) || (old === document.activeElement && isField(old))) return;
  if (old.nodeName !== fresh.nodeName || old.nodeType !== Node.ELEMENT_NODE) {
    old.replaceWith(fresh);
    return;
  }
  if (old.open) fresh.setAttribute("open", "");
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const named = new Map([...old.children].filter((each) => each.id).map((each) => [each.id, each]));
  let place = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const same = next.id ? named.get(next.id) : place;
    if (!same || (!next.id && same.id)) old.insertBefore(next, place);
    else {
      if (same === place) place = place.nextSibling;
      else old.insertBefore(same, place);
      morph(same, next);
    }
  }
  while (place) [place] = [place.nextSibling, place.remove()];
}

let refreshing = false, refreshedAt = Date.now();

/** Fetch the page again, and replace the parts that are live. */
async function refresh() {
  if (refreshing || document.hidden) return;
  refreshing = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (new URL(answer.url).pathname === `${root}/login`) say("login");
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of all("[data-live][id]")) {
      const fresh = page.getElementById(old.id);
      if (fresh) morph(old, document.adoptNode(fresh));
    }
    watch();
  } catch {
    // The event stream says whether the server is there.
  } finally {
    refreshing = false;
    refreshedAt = Date.now();
  }
}

let soon = 0;
/** Refresh in a moment, once for all that changes meanwhile; with many routes, every five seconds at most. */
function refreshSoon() {
  const now = () => { soon = 0; refresh(); };
  soon ||= setTimeout(now, Math.max(300, refreshedAt + 5000 - Date.now()));
}

// ---- The event stream ----

/**
 * Keep an event stream open while the page can be seen, so that hidden tabs cost nothing.
 *
 * `listeners` maps the names of events to functions of their data. `changed` is called with `open`, `lost` or
 * `login`.
 */
function follow(path, listeners, changed = () => {}) {
  let source, timer = 0, delay = 1000;
  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = undefined;
  };
  const open = () => {
    close();
    source = new EventSource(root + path);
    source.onopen = () => { delay = 1000; changed("open"); };
    source.onerror = async () => {
      changed("lost");
      if (source?.readyState !== EventSource.CLOSED) return; // the browser connects again
      close();
      timer = setTimeout(open, (delay = Math.min(2 * delay, 30000)));
      const { status } = await fetch(root + path, { method: "HEAD" }).catch(() => ({}));
      if (status === 401 || status === 403) changed("login");
    };
    for (const [name, listener] of Object.entries(listeners))
      source.addEventListener(name, (event) => event.data && listener(JSON.parse(event.data), event.data));
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  if (!document.hidden) open();
}

const banner = find("#connection");
const clock = () => new Date().toISOString().slice(11, 19);
const said = {
  lost: () => `Disconnected since ${clock()} UTC. The figures are those of that time; the page connects again.`,
  closing: () => `The server ended at ${clock()} UTC. The page connects again when it is back.`,
  login: () => "The login has ended: it lasts for 12 hours, and ends with its token.",
};
let saying = "";

/** Show what is wrong with the connection; an empty state hides it. */
function say(state, detail = "") {
  if (!banner || saying === state + detail) return;
  if (state === "lost" && ["closing", "login"].includes(saying)) return;
  saying = state + detail;
  banner.hidden = !state;
  body.classList.toggle("old", ["lost", "closing", "login"].includes(state));
  find("p", banner).textContent = state ? said[state]?.() || detail : "";
  find("a", banner).hidden = state !== "login";
}

const routes = new Map();
let heardAt = Date.now();

function onState(event) {
  heardAt = Date.now();
  const isBack = Boolean(saying) && !saying.startsWith("backend");
  say(event.backend ? "backend" : "", event.backend && `The backend does not answer: ${event.backend}.`);
  let changed = isBack || event.removed?.some((name) => routes.has(name));
  if (event.complete) routes.clear();
  for (const name of event.removed || []) routes.delete(name);
  for (const [name, now] of Object.entries(event.routes || {})) routes.set(name, now);
  changed ||= body.dataset.revision !== event.revision;
  body.dataset.revision = event.revision;
  const trouble = event.trouble || "";
  for (const cell of all("[data-trouble]")) {
    const { dataset, classList } = cell;
    if (Number(dataset.trouble) !== (event.workers || 0) || Boolean(trouble) !== classList.contains("warn")) changed = true;
    else if (trouble) cell.textContent = trouble;
  }
  for (const [name, now] of Object.entries(event.routes || {}))
    for (const element of shown.get(name) || []) {
      if ("condition" in element.dataset && element.dataset.condition !== conditionOf(now).kind) changed = true;
      if (visible.has(element)) changed = showRoute(element, now) || changed;
    }
  showSums();
  if (changed) refreshSoon();
}

const conditionOf = (now) => now.condition || { kind: "running", text: "running", detail: "" };

/** Show the figures of a route; return whether the number of dead letters has become, or ceased to be, a link. */
function showRoute(element, now) {
  const values = figuresOf(now), condition = conditionOf(now), state = find(".state", element);
  let changed = false;
  for (const cell of all("[data-cell]", element)) {
    const name = cell.dataset.cell;
    if (name === "oldest") cell.dataset.at = now.state?.oldest_at ?? "";
    if (name === "dead") changed = Boolean(find("a", cell)) !== Boolean(values.dead);
    if (name in values) show(cell, name, values[name]);
  }
  if (state && element.dataset.condition === condition.kind) {
    const detail = find(".s", state);
    find("b", state).textContent = condition.text;
    if (detail && condition.detail) detail.textContent = condition.detail;
  }
  return changed;
}

// Of a thousand rows, those in the window are kept up to date, and others when they come into it.
const shown = new Map(), visible = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    visible[isIntersecting ? "add" : "delete"](target);
    if (isIntersecting && routes.has(target.dataset.route)) showRoute(target, routes.get(target.dataset.route));
  }
}, { rootMargin: "300px" });

/** Find the elements of the routes, after the page has changed. */
function watch() {
  shown.clear();
  for (const each of all("[data-route]")) {
    shown.set(each.dataset.route, [...(shown.get(each.dataset.route) || []), each]);
    watcher.observe(each);
  }
}

function figuresOf(now) {
  const { state = {}, figures = {} } = now;
  const seen = state.ready != null;
  return {
    rate: figures.rate || 0,
    p50: figures.p50,
    p99: figures.p99,
    retried: figures.retried || 0,
    backlog: seen ? state.ready + (state.delayed || 0) : null,
    in_flight: seen ? state.in_flight : null,
    dead: seen ? state.dead : null,
    oldest: state.oldest_at == null ? null : Math.max(0, Date.now() / 1000 - state.oldest_at),
  };
}

function showSums() {
  const sums = { rate: 0, backlog: 0, paused: 0, retried: 0, dead: 0 };
  for (const now of routes.values()) {
    const values = figuresOf(now);
    for (const name of Object.keys(sums)) sums[name] += values[name] || 0;
    if (now.condition?.kind === "paused") sums.paused += values.backlog || 0;
  }
  for (const cell of all("[data-sum]")) {
    const name = cell.dataset.sum;
    show(cell, name, sums[name]);
    if (cell.classList.contains("nav-n")) cell.hidden = !sums[name];
  }
}

/** Every second: ages grow, silence is noticed, and parts with an interval are replaced. */
function tick() {
  if (document.hidden) return;
  const now = Date.now();
  for (const element of visible) {
    const cell = find("[data-cell=oldest][data-at]", element);
    if (cell?.dataset.at) show(cell, "oldest", Math.max(0, now / 1000 - cell.dataset.at));
  }
  for (const time of all("time")) {
    const age = now / 1000 - Date.parse(time.dateTime) / 1000;
    if (time.textContent.endsWith(" ago") && age >= 0) time.textContent = `${age.toFixed(0)} s ago`;
  }
  if (banner && now - heardAt > 6000) say("lost");
  const every = Math.min(...all("[data-live]").map((each) => Number(each.dataset.live) || Infinity));
  if (now - refreshedAt >= every * 1000) refresh();
}

// ---- The keyboard ----

const keys = find("#keys");
const rows = () => all("main tbody tr, main .groups li").filter((row) => find("a", row));

/** Go to the next row, or the one before; the focus is on its first link, so that Enter opens it. */
function step(by) {
  const list = rows();
  const at = list.findIndex((row) => row.contains(document.activeElement));
  const row = list.at(at < 0 ? Math.min(by, 0) : Math.min(Math.max(at + by, 0), list.length - 1));
  if (row) find("a", row).focus();
}

let afterG = 0;
const actions = { j: () => step(1), k: () => step(-1), r: refresh, "?": () => keys?.showModal() };
actions["/"] = () => find("main input[type=search]")?.focus();

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || keys?.open) return;
  if (isField(target)) {
    if (key === "Escape") target.blur();
  } else if (Date.now() - afterG < 1500) {
    afterG = 0;
    find(`nav a[data-key="${CSS.escape(key)}"]`)?.click();
  } else if (key === "g") {
    afterG = Date.now();
  } else if (Object.hasOwn(actions, key)) {
    event.preventDefault();
    actions[key]();
  }
});

for (const button of all("[data-opens]")) {
  button.hidden = false;
  button.addEventListener("click", () => document.getElementById(button.dataset.opens)?.showModal());
}

if (banner && !find("[data-tail]")) { // a page has one stream
  watch();
  const changed = (state) => (state === "open" ? (heardAt = Date.now()) : say(state));
  follow("/v1/events?counts=no", { state: onState, closing: () => say("closing") }, changed);
  document.addEventListener("visibilitychange", () => {
    heardAt = Date.now();
    if (!document.hidden) refresh();
  });
  setInterval(tick, 1000);
}

/** Check a form while a person types: post it to `data-check`, and show the answer in `#data-into`. */
function checkWhileTyping(form) {
  const into = document.getElementById(form.dataset.into);
  let [timer, current] = [0, new AbortController()];
  const check = async () => {
    current.abort();
    const { signal } = (current = new AbortController());
    const body = new URLSearchParams(new FormData(form));
    try {
      const answer = await fetch(form.dataset.check, { method: "POST", body, signal, headers: { Accept: "text/html" } });
      if (!answer.ok || answer.redirected) throw new Error(`the server answers ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!signal.aborted) into.replaceChildren(...page.body.childNodes);
    } catch (error) {
      if (!signal.aborted) into.textContent = `Cannot check now: ${error.message}.`;
    }
  };
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(check, 300); });
  // What it is about may be gone once the form is sent.
  form.addEventListener("submit", () => { clearTimeout(timer); current.abort(); });
}

/** Follow the stream `data-tail`: each message becomes a copy of `#tail-row`. The newest 200 rows stay. */
function followTail(list) {
  const [row, state, stop] = ["#tail-row", "#tail-state", "#tail-stop"].map((css) => find(css));
  let stopped = false;
  const tell = (text) => { state.textContent = text; };
  const plain = (text) => text.replace(/[^\P{C}\n]|[\u2028\u2029]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
  // A number that a script cannot hold exactly is shown as it was sent.
  const exact = (_, value, { source } = {}) => (typeof value === "number" && source && JSON.rawJSON ? JSON.rawJSON(source) : value);
  const add = (id, make) => {
    if ([...list.children].some((each) => each.dataset.id === id)) return;
    list.prepend(make());
    list.firstElementChild.dataset.id = id;
    while (list.children.length > 200) list.lastElementChild.remove();
  };
  const made = (each, payload) => {
    const copy = row.content.firstElementChild.cloneNode(true);
    const texts = { ...each, time: new Date(each.published_at * 1000).toISOString().slice(11, 23) };
    if (each.deliveries) texts.state += `, ${each.deliveries}`;
    if (each.omitted) texts.omitted = `${each.omitted} more before it`;
    [texts.preview, texts.payload] = [JSON.stringify(payload)?.slice(0, 200), JSON.stringify(payload, null, 2)];
    texts.headers = Object.entries(each.headers || {}).map((pair) => pair.join(": ")).join("\n");
    for (const slot of all("[data-slot]", copy)) slot.textContent = plain(texts[slot.dataset.slot] || "");
    return copy;
  };
  const catchUp = async () => { // what came before the stream began is on the page, if it is read again
    const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
    for (const each of all("[data-tail] > tr", page).reverse()) add(each.dataset.id, () => document.adoptNode(each));
  };
  const restart = () => { tell("live"); catchUp().catch(() => {}); };
  stop.hidden = false;
  stop.addEventListener("click", () => {
    stop.textContent = (stopped = !stopped) ? "Continue" : "Stop";
    if (stopped) tell("stopped"); else restart();
  });
  follow(list.dataset.tail, {
    message: (each, data) => stopped || add(`${each.key} ${each.id}`, () => made(each, JSON.parse(data, exact).payload)),
    skipped: () => tell("live; older messages were skipped"),
    dropped: () => tell("live; too many messages to show all"),
    closing: () => tell("the server ends, or the rights have changed"),
    error: ({ detail }) => tell(detail),
  }, (now) => {
    if (stopped) return;
    if (now === "open") restart();
    else if (now === "login") tell("the login has ended: reload the page");
    else if (state.textContent.startsWith("live")) tell(`disconnected since ${clock()} UTC: connecting again…`);
  });
}
all("form[data-check]").forEach(checkWhileTyping);
all("[data-tail]").forEach(followTail);
