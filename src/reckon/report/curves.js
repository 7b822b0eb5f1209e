// The learning curves: small figures that share their horizontal axis, their smoothing and their cursor.
{
  const data = read("curves-data");
  const holders = [...document.querySelectorAll(".chart")];
  const margin = { right: 12, top: 24, bottom: 34 };
  let axis = data?.axes[0];
  let half = 0; // points on either side that are averaged with one
  let cursor = null; // the row of the log that is being read

  /** The mean of each point and its neighbours that are known; shorter windows at the ends, null stays null. */
  function smooth(values) {
    if (half === 0) return values;
    const known = values.flatMap((value, i) => (value == null ? [] : [i]));
    const sums = [0];
    for (const i of known) sums.push(sums.at(-1) + values[i]);
    const out = values.map(() => null);
    known.forEach((i, at) => {
      const reach = Math.min(half, at, known.length - 1 - at); // symmetric, so that a trend is not shifted
      out[i] = (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1);
    });
    return out;
  }

  /** Round numbers that cover [low, high] in about `n` steps. */
  function ticks(low, high, n) {
    const rough = (high - low || Math.abs(high) || 1) / n;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].find((m) => m * power >= rough) * power;
    const found = [];
    for (let k = Math.floor(low / step + 1e-9); k * step < high + step * (1 - 1e-9) || found.length < 2; k++) found.push(k * step);
    return found;
  }

  /** A tick's label: as many decimals as the step between ticks needs. */
  function label(value, step, percent) {
    const [scaled, unit] = percent ? [value * 100, step * 100] : [value, step];
    const digits = [0, 1, 2, 3, 4, 5, 6].find((d) => Math.abs(unit * 10 ** d - Math.round(unit * 10 ** d)) < 1e-6) ?? 7;
    const size = Math.abs(scaled);
    if (size < unit / 2) return percent ? "0%" : "0";
    if (size >= 1e5 || (digits > 4 && size < 0.01)) return numeral(scaled, 3);
    return minus(scaled.toFixed(digits)) + (percent ? "%" : "");
  }
  const said = (value, percent) => (value == null ? "\u2013" : percent ? `${(100 * value).toFixed(1)}%` : fixed(value));

  /** Three significant digits with their zeros, so that the legend does not jump as its numbers change. */
  const fixed = (value) => {
    const size = Math.abs(value);
    return size < 1e-3 || size >= 1e6 ? numeral(value, 3) : size >= 100 ? minus(whole(value)) : minus(value.toPrecision(3));
  };

  /** The known point nearest to the cursor, or the last one. */
  function nearest(values) {
    let best = null;
    for (let i = 0; i < values.length; i++) {
      if (values[i] == null) continue;
      if (cursor == null || best == null || Math.abs(axis.values[i] - axis.values[cursor]) < Math.abs(axis.values[best] - axis.values[cursor])) best = i;
    }
    return best;
  }

  /** One path through the known points. */
  const path = (values, x, y) => values.reduce(
    (d, value, i) => (value == null || axis.values[i] == null ? d : `${d}${d ? "L" : "M"}${x(axis.values[i]).toFixed(1)} ${y(value).toFixed(1)}`), "");

  function scales(figure, width, height) {
    const drawn = figure.lines.flatMap((line) => [line.key, line.low, line.high].filter(Boolean).flatMap((key) => data.columns[key]));
    const known = drawn.filter((value) => value != null);
    let low = Math.min(...known.slice(0, 1)), high = low;
    for (const value of known) { low = Math.min(low, value); high = Math.max(high, value); }
    if (low > 0 && (figure.percent || low < high / 2 || low === high)) low = 0;
    let vertical = ticks(low, high, 4);
    if (figure.percent) vertical = vertical.filter((value) => value < 1 + 1e-9);
    if (vertical.length < 2) vertical = [0, 1];
    const places = axis.values.filter((value) => value != null);
    const horizontal = ticks(places[0] ?? 0, places.at(-1) ?? 1, Math.max(2, Math.floor(width / 90)));
    const [left, right] = [places[0] ?? 0, Math.max(places.at(-1) ?? 1, (places[0] ?? 0) + 1e-9)];
    const [bottom, top] = [vertical[0], Math.max(vertical.at(-1), high)];
    const names = vertical.map((value) => label(value, vertical[1] - vertical[0], figure.percent));
    const edge = 6.8 * Math.max(4, ...names.map((name) => name.length)) + 10;
    return {
      edge, names, vertical, horizontal: horizontal.filter((value) => value >= left - 1e-9 && value <= right + 1e-9),
      x: (value) => edge + ((value - left) / (right - left)) * (width - edge - margin.right),
      y: (value) => height - margin.bottom - ((value - bottom) / (top - bottom)) * (height - margin.bottom - margin.top),
    };
  }

  function frame(svg, figure, { edge, names, x, y, vertical, horizontal }, width, height) {
    const base = height - margin.bottom;
    vertical.forEach((value, i) => {
      svg.append(shape("line", { class: "grid", x1: edge, x2: width - margin.right, y1: y(value), y2: y(value) }));
      svg.append(shape("text", { x: edge - 6, y: y(value) + 4, "text-anchor": "end" }, names[i]));
    });
    svg.append(shape("path", { class: "axis", d: `M${edge} ${base}H${width - margin.right}` }));
    for (const value of horizontal) {
      svg.append(shape("path", { class: "axis", d: `M${x(value)} ${base}v4` }));
      const text = ["tokens", "frames"].includes(axis.name) ? short(value) : label(value, horizontal.length > 1 ? horizontal[1] - horizontal[0] : 1, false);
      svg.append(shape("text", { x: x(value), y: base + 16, "text-anchor": "middle" }, text));
    }
    svg.append(shape("text", { x: 0, y: 10 }, figure.unit));
    svg.append(shape("text", { x: width - margin.right, y: height - 4, "text-anchor": "end" }, axis.unit));
  }

  const short = (value) => (value >= 1e6 ? `${+(value / 1e6).toPrecision(3)}M` : value >= 1e3 ? `${+(value / 1e3).toPrecision(3)}k` : String(value));

  function draw(holder, figure) {
    const svg = holder.querySelector(":scope > svg");
    const { width, height } = svg.getBoundingClientRect();
    if (width === 0) return;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const scale = scales(figure, width, height);
    const { x, y } = scale;
    frame(svg, figure, scale, width, height);
    figure.lines.forEach((line, n) => {
      const values = data.columns[line.key];
      const color = `line-${n % 6}`;
      if (line.low && data.columns[line.low]) {
        const known = values.flatMap((value, i) => (value == null || data.columns[line.low][i] == null ? [] : [i]));
        const edge = (key, order) => order.map((i) => `${x(axis.values[i]).toFixed(1)} ${y(data.columns[key][i]).toFixed(1)}`).join("L");
        if (known.length > 1) svg.append(shape("path", { class: `band ${color}`, d: `M${edge(line.low, known)}L${edge(line.high, known.toReversed())}Z` }));
        else known.forEach((i) => svg.append(shape("path", { class: `raw ${color}`, d: `M${x(axis.values[i])} ${y(data.columns[line.low][i])}V${y(data.columns[line.high][i])}` })));
      }
      if (half > 0 && !line.points) svg.append(shape("path", { class: `raw ${color}`, d: path(values, x, y) }));
      svg.append(shape("path", { class: `smooth ${color}`, d: path(line.points ? values : smooth(values), x, y) }));
      const known = values.flatMap((value, i) => (value == null ? [] : [i]));
      for (const i of line.points || known.length === 1 ? known : []) {
        svg.append(shape("circle", { class: color, cx: x(axis.values[i]), cy: y(values[i]), r: 4 }));
      }
    });
    svg.append(shape("g", { class: "cursor" }));
    holder.place = x;
    mark(holder, figure);
  }

  /** The cursor's line, and the values at it in the legend; the last values where there is no cursor. */
  function mark(holder, figure) {
    const svg = holder.querySelector(":scope > svg");
    const group = svg.querySelector(".cursor");
    if (!group) return;
    group.replaceChildren();
    const height = svg.viewBox.baseVal.height, width = svg.viewBox.baseVal.width;
    if (cursor != null && axis.values[cursor] != null) {
      const place = holder.place(axis.values[cursor]);
      group.append(shape("path", { class: "cross", d: `M${place} ${margin.top}V${height - margin.bottom}` }));
      const text = axis.name === "minutes" ? axis.values[cursor].toFixed(1) : whole(axis.values[cursor]);
      const [middle, wide] = [Math.min(Math.max(place, 30), width - 30), 7.5 * text.length + 12];
      group.append(shape("rect", { class: "under", x: middle - wide / 2, y: height - margin.bottom + 5, width: wide, height: 15 }));
      group.append(shape("text", { class: "at", x: middle, y: height - margin.bottom + 16, "text-anchor": "middle" }, text));
    }
    const words = figure.lines.map((line, n) => {
      const values = data.columns[line.key];
      const shown = line.points ? values : smooth(values);
      const i = nearest(shown);
      const range = i != null && line.low && data.columns[line.low]?.[i] != null
        ? ` (${said(data.columns[line.low][i], figure.percent)} to ${said(data.columns[line.high][i], figure.percent)})` : "";
      const text = `${line.label ? `${line.label} ` : ""}${i == null ? "\u2013" : said(shown[i], figure.percent)}${range}`;
      holder.querySelectorAll(".legend output")[n].textContent = text;
      return text;
    });
    const at = cursor ?? data.axes[0].values.length - 1;
    svg.setAttribute("aria-valuenow", at);
    svg.setAttribute("aria-valuetext", `step ${data.axes[0].values[at]}: ${words.join(", ")}`);
  }

  const all = (act) => holders.forEach((holder, n) => act(holder, data.figures[n]));

  function listen(holder) {
    const svg = holder.querySelector(":scope > svg");
    const rows = data.axes[0].values.length;
    Object.entries({ role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": rows - 1 }).forEach(([key, value]) => svg.setAttribute(key, value));
    const move = (to) => { cursor = to; all(mark); };
    svg.addEventListener("pointermove", (event) => {
      const at = event.clientX - svg.getBoundingClientRect().left;
      let best = null;
      axis.values.forEach((value, i) => {
        if (value != null && (best == null || Math.abs(holder.place(value) - at) < Math.abs(holder.place(axis.values[best]) - at))) best = i;
      });
      move(best);
    });
    svg.addEventListener("pointerleave", () => move(null));
    svg.addEventListener("blur", () => move(null));
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -rows, End: rows }[event.key];
      if (event.key === "Escape") move(null);
      if (!by) return;
      event.preventDefault();
      move(Math.min(rows - 1, Math.max(0, (cursor ?? rows - 1) + by)));
    });
  }

  if (data && holders.length) {
    segments(byId("axes"), "axis", data.axes.map(({ name }) => [name, name]), axis.name, (name) => {
      axis = data.axes.find((candidate) => candidate.name === name);
      all(draw);
    });
    const slider = byId("smoothing");
    const rows = data.axes[0].values.length;
    slider.max = Math.max(0, Math.floor(rows / 8));
    slider.disabled = rows < 8;
    slider.value = Math.min(Math.floor(rows / 40), slider.max);
    const follow = () => {
      half = Number(slider.value);
      byId("window").textContent = half === 0 ? "none" : `mean of ${2 * half + 1} steps`;
    };
    slider.addEventListener("input", () => { follow(); all(draw); });
    follow();
    holders.forEach(listen);
    new ResizeObserver(() => all(draw)).observe(holders[0].parentElement);
  }
}
