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

// Checks a form while a person types. `form[data-check]` is posted to that address, and the answer, which is HTML of
// this server, becomes the content of the element with the id `data-into`.
for (const form of document.querySelectorAll("form[data-check]")) {
  const into = document.getElementById(form.dataset.into);
  let timer = 0;
  let current = new AbortController();
  const check = async () => {
    current.abort();
    current = new AbortController();
    const { signal } = current;
    try {
      const body = new URLSearchParams(new FormData(form));
      const answer = await fetch(form.dataset.check, { method: "POST", body, signal, headers: { Accept: "text/html" } });
      if (!answer.ok || answer.redirected) throw new Error(`the server answers ${answer.status}`);
      const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!signal.aborted) into.replaceChildren(...parsed.body.childNodes);
    } catch (error) {
      if (!signal.aborted) into.textContent = `Cannot check now: ${error.message}.`;
    }
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(check, 300);
  });
}
