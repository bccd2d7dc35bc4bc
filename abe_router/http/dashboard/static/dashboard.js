// Makes an open page live. Every page works without it.
const root = document.body.dataset.root;

// Keyboard: `/` goes to the filter, `g` and a letter to a page, `?` lists the keys.
let afterG = false;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (afterG) {
    afterG = false;
    const link = document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
    if (link) location.assign(link.href);
  } else if (event.key === "g") {
    afterG = true;
  } else if (event.key === "/") {
    const filter = document.querySelector("input[type=search]");
    if (filter) {
      event.preventDefault();
      filter.focus();
    }
  }
});

/** Check a form while a person types: post `form[data-check]` there, and show the answer in `#data-into`. */
function checkWhileTyping(form) {
  const into = document.getElementById(form.dataset.into);
  let timer = 0, current = new AbortController();
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      current.abort();
      const { signal } = (current = new AbortController());
      try {
        const body = new URLSearchParams(new FormData(form));
        const answer = await fetch(form.dataset.check, { method: "POST", body, signal, headers: { Accept: "text/html" } });
        if (!answer.ok || answer.redirected) throw new Error(`the server answers ${answer.status}`);
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (!signal.aborted) into.replaceChildren(...page.body.childNodes);
      } catch (error) {
        if (!signal.aborted) into.textContent = `Cannot check now: ${error.message}.`;
      }
    }, 300);
  });
}

/** Follow the stream at the address `rows.dataset.tail`: add a copy of `#tail-row` for each message. */
function followTail(rows) {
  const [row, state, stop] = ["tail-row", "tail-state", "tail-stop"].map((id) => document.getElementById(id));
  let stream = null;
  const plain = (text) => text.replace(/[^\P{C}\n]|[\u2028\u2029]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
  // A number that a script cannot hold exactly is shown as it was sent.
  const exact = (_, value, { source } = {}) => (typeof value === "number" && source && JSON.rawJSON ? JSON.rawJSON(source) : value);
  const add = (id, make) => {
    if ([...rows.children].some((each) => each.dataset.id === id)) return;
    rows.prepend(make());
    rows.firstElementChild.dataset.id = id;
    while (rows.children.length > 200) rows.lastElementChild.remove();
  };
  const show = (each) => add(`${each.key} ${each.id}`, () => {
    const made = row.content.firstElementChild.cloneNode(true);
    const texts = {
      ...each, time: new Date(each.published_at * 1000).toISOString().slice(11, 23),
      state: each.deliveries ? `${each.state}, ${each.deliveries}` : each.state, omitted: each.omitted ? `${each.omitted} more before it` : "",
      preview: JSON.stringify(each.payload)?.slice(0, 200), payload: JSON.stringify(each.payload, null, 2),
      headers: Object.entries(each.headers ?? {}).map((pair) => pair.join(": ")).join("\n"),
    };
    for (const slot of made.querySelectorAll("[data-slot]")) slot.textContent = plain(texts[slot.dataset.slot] ?? "");
    return made;
  });
  const catchUp = async () => { // what came before the stream began is on the page, if it is read again
    const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
    for (const each of [...page.querySelectorAll("[data-tail] > tr")].reverse()) add(each.dataset.id, () => document.importNode(each, true));
  };
  const close = (text) => {
    stream?.close();
    [stream, state.textContent, stop.textContent] = [null, text, "Continue"];
  };
  const open = () => {
    [stop.hidden, stop.textContent, state.textContent] = [false, "Stop", "connecting…"];
    stream = new EventSource(rows.dataset.tail);
    stream.onopen = () => { state.textContent = "live"; catchUp().catch(() => {}); };
    stream.onmessage = ({ data }) => show({ ...JSON.parse(data), payload: JSON.parse(data, exact).payload });
    stream.addEventListener("skipped", () => { state.textContent = "live; older messages were skipped"; });
    stream.addEventListener("dropped", () => { state.textContent = "live; too many messages to show all"; });
    stream.addEventListener("closing", () => close("the server ends, or the rights have changed: reload the page"));
    stream.onerror = ({ data }) => {
      if (data) close(JSON.parse(data).detail);
      else if (stream?.readyState === EventSource.CLOSED) close("disconnected");
      else state.textContent = "disconnected: connecting again…";
    };
  };
  stop.addEventListener("click", () => (stream ? close("stopped") : open()));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && stream) close("hidden");
    else if (!document.hidden && state.textContent === "hidden") open();
  });
  open();
}
document.querySelectorAll("form[data-check]").forEach(checkWhileTyping);
document.querySelectorAll("[data-tail]").forEach(followTail);
