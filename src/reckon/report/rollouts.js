// The rollouts: filters, pages, and every token shaded by its credit.
{
  const SIZE = 10; // responses on a page
  const LONGEST = 1500; // tokens of a response that are shown at once
  const SIGNS = { right: "\u2713 right", wrong: "\u2717 wrong", partial: "\u25d0 partly right", unknown: "? unknown" };
  const data = read("rollouts-data");
  const rows = (data?.rows ?? []).map(([source, step, group, problem, outcome, parsed, reason, end, trained, text, cuts, logprobs, credit, flat, dense]) => {
    const [id, domain, prompt, answer] = data.problems[problem];
    const verdict = outcome == null ? "unknown" : outcome >= 1 ? "right" : outcome <= 0 ? "wrong" : "partial";
    return { source, step, group, id, domain, prompt, answer, verdict, outcome, parsed, reason, end, trained, text, cuts, logprobs, credit, flat, dense };
  });
  const chosen = { verdict: "all", source: "", step: "", domain: "", search: "", sibling: null };
  const kinds = ["right", "wrong", "partial", "unknown"].filter((kind) => kind !== "partial" || rows.some((row) => row.verdict === kind));
  let shade = -1; // -1 is credit, else a dense stream
  let page = 0;
  let found = rows;
  let setCounts = () => {};

  const values = (row) => {
    const list = shade < 0 ? row.credit : row.dense[shade];
    return typeof list === "number" ? row.cuts.map(() => list) : list;
  };
  const same = (row, other) => row.source === other.source && row.step === other.step && row.group === other.group;
  const haystack = (row) => (row.hay ??= `${row.prompt ?? ""}\n${row.text}\n${row.parsed ?? ""}\n${row.answer ?? ""}\n${row.id ?? ""}`.toLowerCase());

  function filter() {
    const words = chosen.search.toLowerCase();
    const rest = rows.filter((row) =>
      (chosen.source === "" || row.source === Number(chosen.source)) &&
      (chosen.step === "" || row.step === Number(chosen.step)) &&
      (chosen.domain === "" || row.domain === chosen.domain) &&
      (chosen.sibling == null || same(row, chosen.sibling)) &&
      (words === "" || haystack(row).includes(words)));
    const tally = { all: rest.length };
    for (const row of rest) tally[row.verdict] = (tally[row.verdict] ?? 0) + 1;
    setCounts(["all", ...kinds].map((kind) => `${kind} ${whole(tally[kind] ?? 0)}`));
    found = chosen.verdict === "all" ? rest : rest.filter((row) => row.verdict === chosen.verdict);
    turn(0);
  }

  function turn(to) {
    const pages = Math.max(1, Math.ceil(found.length / SIZE));
    page = Math.min(Math.max(0, to), pages - 1);
    const shown = found.slice(page * SIZE, (page + 1) * SIZE);
    const largest = shown.reduce((most, row) => (values(row) ?? []).reduce((m, value) => Math.max(m, Math.abs(value ?? 0)), most), 0);
    byId("matches").textContent = found.length === 0 ? `None of ${whole(rows.length)} rollouts match.`
      : `${whole(page * SIZE + 1)} to ${whole(page * SIZE + shown.length)} of ${whole(found.length)} that match`;
    byId("scale-low").textContent = largest ? numeral(-largest, 3) : "nothing to shade";
    byId("scale-high").textContent = largest ? `+${numeral(largest, 3)} ${shade < 0 ? "credit" : data.dense[shade]}` : "on this page";
    byId("page").value = page + 1;
    byId("page").max = pages;
    byId("pages").textContent = `of ${whole(pages)}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    byId("sibling").hidden = chosen.sibling == null;
    if (chosen.sibling) byId("sibling").firstElementChild.textContent = `Only the answers to ${visible(chosen.sibling.id ?? "one problem")} at step ${chosen.sibling.step}.`;
    hide();
    byId("responses").replaceChildren(...shown.map((row) => response(row, largest)));
  }

  /** One response with all that is known about it. */
  function response(row, largest) {
    const fact = (name, value) => (value == null || value === "" ? null : make("span", {}, `${name} `, make("b", {}, visible(String(value)))));
    const others = make("button", { type: "button" }, "its group");
    others.addEventListener("click", () => { chosen.sibling = row; chosen.verdict = "all"; byId("verdicts").querySelector("input").checked = true; filter(); });
    const score = row.verdict === "partial" ? ` ${numeral(row.outcome)}` : "";
    const top = make("p", { class: "facts" },
      make("span", { class: `verdict ${row.verdict}` }, SIGNS[row.verdict] + score),
      fact("answer", row.parsed ?? "none"), fact("reference", row.answer ?? "none"), row.reason === row.verdict ? null : fact("because", row.reason));
    const place = make("p", { class: "facts" },
      make("span", {}, `${data.sources[row.source]}, step ${row.step}`), fact("problem", row.id), fact("domain", row.domain), fact("ended by", row.end),
      row.trained === false ? make("span", {}, "not trained on") : null, row.group == null ? null : others);
    const flat = row.flat.map((value, i) => (value == null ? null : fact(data.flat[i], numeral(value)))).filter(Boolean);
    return make("article", { class: row.verdict }, top, place,
      row.prompt == null ? null : make("p", { class: "prompt" }, visible(row.prompt)),
      tokens(row, largest),
      flat.length ? make("p", { class: "facts" }, ...flat) : null);
  }

  /** The response, one span a token; a single tab stop from which the arrow keys go on. */
  function tokens(row, largest) {
    const holder = make("p", { class: "tokens", role: "group", "aria-label": `Response of ${row.cuts.length} tokens; arrow keys move from token to token` });
    holder.row = row;
    if (row.cuts.length === 0) holder.append(visible(row.text || "(empty)"));
    else add(holder, largest, 0, LONGEST);
    return holder;
  }

  function add(holder, largest, from, to) {
    const { text, cuts } = holder.row;
    const shades = values(holder.row);
    let start = cuts.slice(0, from).reduce((sum, cut) => sum + cut, 0);
    const spans = cuts.slice(from, to).map((cut, i) => {
      const piece = text.slice(start, (start += cut));
      const span = make("span", { tabindex: from + i === 0 ? 0 : -1 }, shown(piece));
      span.index = from + i;
      const value = shades?.[from + i];
      if (value && largest) {
        span.className = value > 0 ? "up" : "down";
        span.style.setProperty("--strength", (Math.abs(value) / largest).toFixed(3));
      }
      span.piece = piece;
      return span;
    });
    holder.append(...spans);
    if (cuts.length > to) {
      const more = make("button", { type: "button" }, `Show the other ${whole(cuts.length - to)} tokens`);
      more.addEventListener("click", () => { more.remove(); add(holder, largest, to, cuts.length); });
      holder.append(" ", more);
    }
  }

  const shown = (piece) => (piece === "" ? "\u25ab" : visible(piece).replaceAll("\n", "\u21b5\n"));

  const hide = () => { byId("readout").hidden = true; };

  /** The numbers of one token, beside it. */
  function tell(span) {
    const { row } = span.parentElement;
    const i = span.index;
    const logprob = row.logprobs?.[i];
    const facts = [
      ["token", `${i + 1} of ${row.cuts.length}`],
      ["credit", numeral(typeof row.credit === "number" ? row.credit : row.credit?.[i])],
      ["log-probability", numeral(logprob)],
      ["probability", logprob == null ? "\u2013" : `${(100 * Math.exp(logprob)).toPrecision(3)}%`],
      ...row.dense.flatMap((list, n) => (list == null ? [] : [[data.dense[n], numeral(list[i])]])),
    ];
    const readout = byId("readout");
    readout.replaceChildren(
      make("p", { class: "shown" }, span.piece === "" ? "no text" : `\u201c${visible(span.piece).replaceAll("\n", "\u21b5")}\u201d`),
      make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
    readout.hidden = false;
    const box = span.getClientRects()[0] ?? span.getBoundingClientRect();
    const size = readout.getBoundingClientRect();
    const above = box.bottom + size.height + 8 > innerHeight && box.top > size.height + 8;
    readout.style.left = `${scrollX + Math.max(4, Math.min(box.left, document.documentElement.clientWidth - size.width - 4))}px`;
    readout.style.top = `${scrollY + (above ? box.top - size.height - 6 : box.bottom + 6)}px`;
    span.setAttribute("aria-describedby", "readout");
  }

  function listen() {
    const list = byId("responses");
    const token = (event) => (event.target.parentElement?.classList.contains("tokens") && event.target.localName === "span" ? event.target : null);
    list.addEventListener("pointerover", (event) => (token(event) ? tell(event.target) : hide()));
    list.addEventListener("pointerleave", hide);
    list.addEventListener("focusin", (event) => (token(event) ? tell(event.target) : hide()));
    list.addEventListener("focusout", hide);
    list.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      const span = token(event);
      const spans = span ? [...span.parentElement.querySelectorAll(":scope > span")] : [];
      const to = { ArrowRight: span?.index + 1, ArrowLeft: span?.index - 1, Home: 0, End: spans.length - 1 }[event.key];
      if (!span || spans[to] === undefined) return;
      event.preventDefault();
      span.tabIndex = -1;
      spans[to].tabIndex = 0;
      spans[to].focus();
    });
  }

  /** Fills a select with "all" and what there is to choose; hidden where there is nothing to choose. */
  function choices(id, options, all) {
    const select = byId(id);
    select.append(...(all ? [make("option", { value: "" }, all)] : []), ...options.map(([value, label]) => make("option", { value }, visible(String(label)))));
    select.parentElement.hidden = options.length < 2;
    return select;
  }

  function start() {
    setCounts = segments(byId("verdicts"), "verdict", ["all", ...kinds].map((kind) => [kind, kind]), "all", (kind) => { chosen.verdict = kind; filter(); });
    const unique = (pick) => [...new Set(rows.map(pick))].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    const options = {
      source: [data.sources.map((name, i) => [i, name]).filter(([i]) => rows.some((row) => row.source === i)), "everywhere"],
      step: [unique((row) => row.step).map((step) => [step, step]), "all"],
      domain: [unique((row) => row.domain ?? "").map((name) => [name, name]), "all"],
    };
    for (const [id, [list, all]] of Object.entries(options)) {
      choices(id, list, all).addEventListener("change", (event) => { chosen[id] = event.target.value; filter(); });
    }
    choices("shade", [[-1, "credit"], ...data.dense.map((name, i) => [i, name])]).addEventListener("change", (event) => { shade = Number(event.target.value); turn(page); });
    byId("search").addEventListener("input", (event) => { chosen.search = event.target.value; filter(); });
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("previous").addEventListener("click", () => turn(page - 1));
    byId("next").addEventListener("click", () => turn(page + 1));
    byId("page").addEventListener("change", (event) => turn(Number(event.target.value) - 1));
    byId("all-groups").addEventListener("click", () => { chosen.sibling = null; filter(); });
    listen();
    filter();
  }

  if (rows.length) start();
}
