// The live page. Everything a process tells is untrusted text: it becomes textContent and nothing else.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SPAN = 300; // seconds that a chart shows at most; it grows to that
  const SHORTEST = 60;
  const STALE = 3500; // milliseconds without news, after which what is shown is old
  const [AT, IN_USE, IDLE, OPENING, WAITING, MAX, WAIT50, WAIT99, USE50, USE99] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

  const byId = (id) => document.getElementById(id);
  const state = { about: {}, frame: null, history: {}, chosen: null, picked: false, token: "", told: 0, why: "", raised: null };

  // ---------------------------------------------------------------------------------------- words

  const seconds = (value) => {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0 s";
    if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
    if (value < 1) return `${(value * 1e3).toFixed(value < 0.1 ? 1 : 0)} ms`;
    if (value < 100) return `${value.toFixed(1)} s`;
    return value < 5400 ? `${(value / 60).toFixed(0)} min` : `${(value / 3600).toFixed(1)} h`;
  };
  // A percentile: the first and the last of the buckets that it is estimated from have one bound only.
  const lasted = (value) => (value === 0.001 ? "under 1 ms" : value === 10 ? "over 10 s" : seconds(value));
  const number = (value) => (value === null || value === undefined ? "–" : Number(value).toLocaleString("en"));
  const rate = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1));
  const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });
  const base = (file) => String(file).split("/").slice(-2).join("/");
  const many = (count, one, more) => (count === 1 ? `1 ${one}` : `${number(count)} ${more}`);

  // ---------------------------------------------------------------------------------------- elements

  const set = (node, text) => {
    if (node.textContent !== String(text)) node.textContent = text;
  };
  const make = (tag, text, className) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const draw = (tag, attributes, text) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // Children of *parent*, one for each item: made once, kept and moved by key, so that focus and selection stay.
  const keep = (parent, items, keyOf, create, update) => {
    const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
    let after = null;
    for (const item of items) {
      const key = String(keyOf(item));
      let node = old.get(key);
      if (node) old.delete(key);
      else {
        node = create(item);
        node.dataset.key = key;
      }
      update(node, item);
      const place = after ? after.nextSibling : parent.firstChild;
      if (place !== node) parent.insertBefore(node, place);
      after = node;
    }
    for (const node of old.values()) node.remove();
  };

  // A table's body; *cells* are functions of a row, each giving text or a node's updater.
  const table = (id, rows, keyOf, cells) => {
    const body = byId(id).tBodies[0];
    keep(body, rows, keyOf, () => {
      const row = make("tr");
      for (const cell of cells) row.append(make("td", undefined, cell.className));
      return row;
    }, (row, item) => cells.forEach((cell, index) => cell.update(row.children[index], item)));
    const none = byId(`${id}-none`);
    byId(id).hidden = rows.length === 0;
    if (none) none.hidden = rows.length > 0;
  };
  const text = (give) => ({ update: (node, item) => set(node, give(item)) });
  const figure = (give) => ({ className: "n", update: (node, item) => set(node, give(item)) });
  const code = (give) => ({
    update: (node, item) => {
      if (!node.firstChild) node.append(make("code"));
      set(node.firstChild, give(item));
    },
  });
  const place = (give) => ({
    className: "place",
    update: (node, item) => {
      const site = give(item);
      if (!node.firstChild) node.append(make("code"), make("small"));
      if (!site) {
        set(node.firstChild, "");
        set(node.lastChild, "");
        return;
      }
      set(node.firstChild, `${base(site.file)}:${site.line}`);
      node.firstChild.title = `${site.file}:${site.line}`;
      set(node.lastChild, `in ${site.function}`);
    },
  });
  const siteKey = (site) => `${site.file}:${site.line}:${site.function}`;

  // ---------------------------------------------------------------------------------------- charts

  const nice = (most) => {
    const power = 10 ** Math.floor(Math.log10(most));
    return [1, 1.2, 1.6, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= most * 0.9999);
  };
  const even = (most) => Math.max(2, 2 * Math.ceil(nice(most) / 2)); // half of it is a whole number, too

  class Plane {
    constructor(svg, span, most, format) {
      this.svg = svg;
      this.width = svg.clientWidth || 320;
      this.height = svg.clientHeight || 130;
      this.left = 46;
      this.right = this.width - 6;
      this.top = 14;
      this.bottom = this.height - 18;
      this.most = most;
      this.now = state.frame.now;
      this.span = span;
      svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
      const parts = [];
      for (const share of [0, 0.5, 1]) {
        const y = this.y(most * share);
        parts.push(draw("line", { class: "grid", x1: this.left, x2: this.right, y1: y, y2: y }));
        parts.push(draw("text", { x: this.left - 6, y: y + 4, "text-anchor": "end" }, format(most * share)));
      }
      parts.push(draw("text", { x: this.left, y: this.height - 4 }, `${span < SPAN ? `${span.toFixed(0)} s` : "5 min"} ago`));
      parts.push(draw("text", { x: this.right, y: this.height - 4, "text-anchor": "end" }, "now"));
      this.parts = parts;
    }
    x(at) { return (this.left + (this.right - this.left) * (1 - (this.now - at) / this.span)).toFixed(1); }
    y(value) { return (this.bottom - (this.bottom - this.top) * Math.min(1, value / this.most)).toFixed(1); }

    // Runs of points without a gap: nothing is drawn where nobody looked.
    runs(points, value) {
      const found = [];
      let run = [];
      let last = null;
      for (const point of points) {
        if (this.now - point[AT] > this.span) continue;
        const known = value(point) !== null;
        if (!known || (last !== null && point[AT] - last > 5)) {
          if (run.length) found.push(run);
          run = [];
        }
        if (known) run.push(point);
        last = point[AT];
      }
      if (run.length) found.push(run);
      return found;
    }
    steps(run, value) {
      let path = "";
      run.forEach((point, index) => {
        const y = this.y(value(point));
        path += index ? `H${this.x(point[AT])}V${y}` : `M${this.x(point[AT])},${y}`;
      });
      return `${path}H${this.x(Math.min(this.now, run[run.length - 1][AT] + 1))}`;
    }
    band(points, from, to, className) {
      for (const run of this.runs(points, to)) {
        const up = this.steps(run, to);
        const end = this.x(Math.min(this.now, run[run.length - 1][AT] + 1));
        let back = `L${end},${this.y(from(run[run.length - 1]))}`;
        for (let index = run.length - 1; index >= 0; index -= 1) {
          back += `H${this.x(run[index][AT])}`;
          if (index) back += `V${this.y(from(run[index - 1]))}`;
        }
        this.parts.push(draw("path", { class: className, d: `${up}${back}Z` }));
      }
    }
    stroke(points, value, className) {
      for (const run of this.runs(points, value)) {
        this.parts.push(draw("path", { class: className, d: this.steps(run, value) }));
      }
    }
    show() { this.svg.replaceChildren(...this.parts); }
  }

  const key = (caption, entries, words) => {
    const nodes = entries.map(([className, label]) => {
      const entry = make("span", undefined, "key");
      const mark = draw("svg", { viewBox: "0 0 22 10", "aria-hidden": "true" });
      mark.append(className.includes("stroke") || className.includes("limit")
        ? draw("line", { class: className, x1: 0, x2: 22, y1: 5, y2: 5 })
        : draw("rect", { class: className, width: 22, height: 10, rx: 2 }));
      entry.append(mark, label);
      return entry;
    });
    const wanted = `${entries.map((entry) => entry.join()).join(";")}|${words}`;
    if (caption.dataset.shown === wanted) return;
    caption.dataset.shown = wanted;
    caption.replaceChildren(...nodes, words);
  };

  const charts = (pool, points) => {
    const shown = points.filter((point) => state.frame.now - point[AT] <= SPAN);
    const span = Math.min(SPAN, Math.max(SHORTEST, state.frame.now - (shown[0]?.[AT] ?? 0)));
    const most = (value) => Math.max(0, ...shown.map((point) => value(point) ?? 0));
    const open = (point) => point[IN_USE] + point[IDLE] + point[OPENING];

    const connections = new Plane(byId("chart-connections").querySelector("svg"), span, even(1.1 * Math.max(1, most(open), most((point) => point[MAX]))), (value) => number(value));
    connections.band(shown, () => 0, (point) => point[IN_USE], "in-use");
    connections.band(shown, (point) => point[IN_USE], (point) => point[IN_USE] + point[IDLE], "idle");
    connections.band(shown, (point) => point[IN_USE] + point[IDLE], open, "opening");
    connections.stroke(shown, (point) => point[MAX], "limit");
    if (pool.max !== null) {
      const y = Number(connections.y(pool.max)) - 5;
      connections.parts.push(draw("text", { class: "limit-label", x: connections.right, y, "text-anchor": "end" }, `the line: ${number(pool.max)}`));
    }
    connections.show();
    key(byId("caption-connections"), [["in-use", "in use"], ["idle", "idle"], ["opening", "being opened"], ["limit", "the line"]],
      `In use now ${number(pool.in_use)}, at most ${number(most((point) => point[IN_USE]))} in five minutes.`);

    const waiting = new Plane(byId("chart-waiting").querySelector("svg"), span, even(Math.max(4, most((point) => point[WAITING]))), (value) => number(value));
    waiting.band(shown, () => 0, (point) => point[WAITING], "area");
    waiting.stroke(shown, (point) => point[WAITING], "stroke");
    waiting.show();
    key(byId("caption-waiting"), [], `Now ${number(pool.waiting)}, at most ${number(most((point) => point[WAITING]))} in five minutes.`);

    for (const [id, p50, p99, times] of [["wait", WAIT50, WAIT99, pool.wait], ["use", USE50, USE99, pool.use]]) {
      const plane = new Plane(byId(`chart-${id}`).querySelector("svg"), span, nice(Math.max(0.004, most((point) => point[p99]))), seconds);
      plane.stroke(shown, (point) => point[p99], "stroke second");
      plane.stroke(shown, (point) => point[p50], "stroke");
      plane.show();
      key(byId(`caption-${id}`), [["stroke", "half are below"], ["stroke second", "99 % are below"]],
        `Now ${lasted(times.p50)}; 95 %: ${lasted(times.p95)}; 99 %: ${lasted(times.p99)}.`);
    }
  };

  // ---------------------------------------------------------------------------------------- parts of the page

  const alerts = (frame) => {
    byId("calm").hidden = frame.alerts.length > 0;
    keep(byId("alert-list"), frame.alerts, (alert) => `${alert.pid} ${alert.pool} ${alert.kind} ${alert.at}`, (alert) => {
      const item = make("li");
      const pool = make("button", undefined, "pool");
      pool.type = "button";
      pool.addEventListener("click", () => choose(alert.pool));
      item.append(make("span", "▲ ", "mark"), make("strong"), " ", pool, " ", make("span"), " ", make("small"));
      item.firstChild.setAttribute("aria-hidden", "true");
      return item;
    }, (item, alert) => {
      const [, kind, pool, why, since] = item.children;
      set(kind, alert.kind);
      set(pool, `${alert.pool}:`);
      set(why, alert.why);
      set(since, `since ${clock(alert.at)}, process ${alert.pid}`);
    });
    // What is new is said once; figures that change within an alert are not.
    const now = new Map(frame.alerts.map((alert) => [`${alert.pid} ${alert.pool} ${alert.kind}`, alert]));
    if (state.raised) {
      const news = [...now].filter(([name]) => !state.raised.has(name)).map(([, alert]) => `Alert: ${alert.kind}, ${alert.pool}.`);
      const over = [...state.raised].filter(([name]) => !now.has(name)).map(([, alert]) => `Cleared: ${alert.kind}, ${alert.pool}.`);
      if (news.length || over.length) set(byId("announced"), [...news, ...over].join(" "));
    }
    state.raised = now;
    document.title = frame.alerts.length ? `▲ ${frame.alerts.length} – Penstock` : "Penstock";

    const recent = frame.alerts_recent;
    byId("recent-none").hidden = recent.length > 0;
    keep(byId("recent"), recent, (alert) => `${alert.pid} ${alert.pool} ${alert.kind} ${alert.at} ${alert.state}`, () => make("li"), (item, alert) =>
      set(item, `${clock(alert.cleared ?? alert.at)} ${alert.state}: ${alert.pool}: ${alert.kind}: ${alert.why}`));
  };

  const choose = (name) => {
    state.chosen = name;
    state.picked = true;
    show();
  };

  const alarming = (name) => state.frame.alerts.some((alert) => alert.pool === name);

  const pools = (frame) => {
    byId("pools").hidden = frame.pools.length < 2;
    keep(byId("pool-list"), frame.pools, (pool) => pool.name, (pool) => {
      const item = make("li");
      const button = make("button");
      button.type = "button";
      const bar = draw("svg", { viewBox: "0 0 100 5", preserveAspectRatio: "none", "aria-hidden": "true" });
      bar.append(draw("rect", { class: "rest", width: 100, height: 5 }), draw("rect", { class: "in-use", height: 5, width: 0 }));
      button.append(make("span"), make("span"), bar);
      button.addEventListener("click", () => {
        choose(pool.name);
      });
      item.append(button);
      return item;
    }, (item, pool) => {
      const button = item.firstChild;
      const [name, use, bar] = button.children;
      set(name, `${alarming(pool.name) ? "▲ " : ""}${pool.name}`);
      set(use, `${number(pool.in_use)}${pool.max === null ? "" : `/${number(pool.max)}`}${pool.waiting ? `, ${number(pool.waiting)} wait` : ""}`);
      bar.lastChild.setAttribute("width", pool.max ? Math.min(100, (100 * pool.in_use) / pool.max) : 0);
      if (pool.name === state.chosen) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  };

  const facts = (list, entries) => keep(list, entries, ([name]) => name, () => {
    const group = make("div");
    group.append(make("dt"), make("dd"));
    return group;
  }, (group, [name, value]) => {
    set(group.firstChild, name);
    set(group.lastChild, value);
  });

  const head = (pool) => {
    set(byId("pool-name"), pool.name);
    set(byId("in-use"), number(pool.in_use));
    set(byId("of-max"), pool.max === null ? "connections in use" : `of ${number(pool.max)} in use`);
    set(byId("states"), [...pool.state, pool.last_error].filter(Boolean).join(" · "));
    const found = [
      ["idle", number(pool.idle)],
      ["being opened", number(pool.opening)],
      ["waiting", number(pool.waiting)],
      ["requests a second", rate(pool.requests_rate)],
      ["wait, 99 %", lasted(pool.wait.p99)],
      ["use, 99 %", lasted(pool.use.p99)],
      ["suspected leaks", number(pool.suspects)],
    ];
    if (pool.multiplexed || pool.statements_rate) found.push(["statements in flight", number(pool.in_flight)], ["statements a second", rate(pool.statements_rate)]);
    if (pool.loop) found.push(["event loop late", seconds(pool.loop.last)]);
    if (pool.would_shed) found.push(["would have shed", number(pool.would_shed)]);
    facts(byId("facts"), found);
  };

  const holders = (pool) => {
    table("holders", pool.holders, (group) => siteKey(group.site), [
      {
        className: "place",
        update: (node, group) => {
          if (!node.firstChild) node.append(make("code"), make("small"), make("span", undefined, "badge"));
          set(node.children[0], `${base(group.site.file)}:${group.site.line}`);
          node.children[0].title = `${group.site.file}:${group.site.line}`;
          set(node.children[1], `in ${group.site.function}`);
          node.children[2].hidden = !group.suspected;
          set(node.children[2], `▲ ${many(group.suspected, "suspected leak", "suspected leaks")}`);
        },
      },
      figure((group) => number(group.count)),
      figure((group) => seconds(group.held)),
      figure((group) => (group.idle_count ? `${group.idle_count === group.count ? "" : `${group.idle_count} × `}${seconds(group.idle)}` : "working")),
      code((group) => group.statement ?? "–"),
      {
        className: "place",
        update: (node, group) => {
          if (!node.firstChild) node.append(make("code"), make("small"));
          const here = group.now_at;
          set(node.children[0], here ? `${base(here.file)}:${here.line}` : "not known");
          set(node.children[1], here ? `in ${here.function}, ${group.owner}` : group.owner);
        },
      },
    ]);
  };

  const rest = (frame, pool) => {
    table("sites", pool.profile.sites, (entry) => siteKey(entry.site), [place((entry) => entry.site), figure((entry) => entry.held.toFixed(2)), figure((entry) => entry.idle.toFixed(2))]);
    table("statements", pool.profile.statements, (entry) => entry.statement, [code((entry) => entry.statement), figure((entry) => entry.ran.toFixed(2))]);
    const several = frame.processes.length > 1;
    table("events", pool.events, (event) => `${event.pid} ${event.at} ${event.what}`, [text((event) => clock(event.at)), text((event) => `${event.what}${several ? ` (process ${event.pid})` : ""}`), figure((event) => number(event.times))]);
    table("members", pool.members, (member) => `${member.host} ${member.pid}`, [
      text((member) => `${member.pid} ${member.title}${member.state.length ? ` – ${member.state.join(", ")}` : ""}`),
      figure((member) => number(member.in_use)),
      figure((member) => number(member.share ?? member.max)),
      figure((member) => number(member.waiting)),
      figure((member) => (member.loop ? seconds(member.loop.last) : "–")),
    ]);
    const fleet = pool.fleet;
    set(byId("fleet"), fleet
      ? `Fleet ${fleet.name}: ${number(fleet.claimed)} of ${number(fleet.budget)} connections claimed by ${many(fleet.members, "process", "processes")}${fleet.hint ? `; ${fleet.hint}` : ""}.`
      : many(pool.members.length, "process has this pool.", "processes have this pool."));
    const counted = [
      ...Object.entries(pool.refusals).map(([reason, count]) => [`refused: ${reason}`, number(count)]),
      ...Object.entries(pool.closes).map(([reason, count]) => [`closed: ${reason}`, number(count)]),
      ["connections opened", number(pool.connects - pool.connect_errors)],
      ["attempts that failed", number(pool.connect_errors)],
    ];
    const list = byId("counts");
    keep(list, counted.flatMap(([name, value]) => [["dt", name, name], ["dd", name, value]]), ([tag, name]) => `${tag} ${name}`, ([tag]) => make(tag), (node, [, , shown]) => set(node, shown));
  };

  const bouncer = (frame) => {
    const found = frame.pgbouncer;
    byId("bouncer").hidden = !found;
    if (!found) return;
    const all = found.version ? ` PgBouncer ${found.version}: ${number(found.clients)} of ${number(found.max_clients)} clients, ${number(found.servers)} connections to servers.` : "";
    set(byId("bouncer-note"), `${found.error ? `Stale, it does not answer: ${found.error}. ` : ""}As of ${clock(found.at)}.${all}`);
    table("bouncer-pools", found.pools, (pool) => `${pool.database} ${pool.role}`, [
      text((pool) => pool.database), text((pool) => pool.role), text((pool) => pool.mode),
      figure((pool) => number(pool.clients)), figure((pool) => number(pool.waiting)), figure((pool) => seconds(pool.longest)),
      figure((pool) => number(pool.servers_active)), figure((pool) => number(pool.servers_idle)), figure((pool) => number(pool.size)),
    ]);
  };

  const actions = (pool) => {
    byId("actions").hidden = !state.about.actions;
    const suspects = pool.holders.filter((group) => group.suspected);
    keep(byId("leak"), suspects.length ? suspects : [null], (group) => (group ? siteKey(group.site) : ""), () => make("option"), (option, group) => {
      set(option, group ? `${base(group.site.file)}:${group.site.line} (${group.suspected})` : "none");
      option.value = group ? JSON.stringify(group.site) : "";
    });
  };

  const about = (frame) => {
    const here = state.about.in_process
      ? state.about.actions ? "This process's own pools; with the token they can be drained, resized, and leaks taken back." : "This process's own pools. Read-only: no token is set."
      : "Read-only: these are other processes, read over their local sockets.";
    set(byId("about"), `${here} Percentiles are estimated from buckets, over ten seconds.`);
    const hosts = [...new Set(frame.processes.map((process) => process.host))];
    const troubles = frame.troubles.length ? ` · not told: ${frame.troubles.join("; ")}` : "";
    set(byId("where"), `${many(frame.processes.length, "process", "processes")} on ${hosts.join(", ") || "this machine"}${troubles}`);
  };

  const show = () => {
    const frame = state.frame;
    if (!frame || frame.error) return;
    byId("all").hidden = false;
    byId("token-form").hidden = true;
    const there = frame.pools.some((pool) => pool.name === state.chosen);
    const alarmed = frame.pools.find((pool) => alarming(pool.name));
    // Until somebody picks one, the first that is alarming is shown.
    if (!there || (!state.picked && alarmed && !alarming(state.chosen))) {
      state.chosen = (alarmed ?? [...frame.pools].sort((a, b) => b.waiting - a.waiting || b.in_use - a.in_use)[0])?.name ?? null;
    }
    alerts(frame);
    pools(frame);
    about(frame);
    bouncer(frame);
    const pool = frame.pools.find((each) => each.name === state.chosen);
    byId("pool").hidden = !pool;
    if (!pool) return;
    head(pool);
    charts(pool, state.history[pool.name] ?? []);
    holders(pool);
    rest(frame, pool);
    actions(pool);
  };

  const status = () => {
    const node = byId("status");
    const age = performance.now() - state.told;
    const frame = state.frame;
    const stale = Boolean(state.why) || !frame || age > STALE || Boolean(frame.error);
    document.body.classList.toggle("stale", stale && Boolean(frame));
    node.classList.toggle("stale", stale && Boolean(frame));
    if (!frame) set(node, state.why || "Connecting…");
    else if (frame.error) set(node, `Stale: the last look failed (${frame.error})`);
    else if (stale) set(node, `Stale: as of ${clock(frame.now)}; connecting again…`);
    else set(node, frame.pools.length ? "● Live" : "● Live: no pool is open yet");
  };

  // ---------------------------------------------------------------------------------------- the stream

  const receive = (event, data) => {
    if (event === "about") state.about = data;
    else if (event === "history") state.history = data;
    else if (event === "frame") {
      state.frame = data;
      state.told = performance.now();
      state.why = "";
      for (const pool of data.pools ?? []) {
        const points = (state.history[pool.name] ??= []);
        if (!points.length || points[points.length - 1][AT] < data.now - 0.01) {
          points.push([data.now, pool.in_use, pool.idle, pool.opening, pool.waiting, pool.max, pool.wait.p50, pool.wait.p99, pool.use.p50, pool.use.p99]);
          if (points.length > SPAN) points.shift();
        }
      }
      show();
      status();
    }
  };

  const authorised = (token) => (token ? { Authorization: `Bearer ${token}` } : {});

  const listen = async () => {
    const response = await fetch("events", { headers: authorised(state.token), cache: "no-store" });
    if (response.status === 401 || response.status === 403) {
      ask(await response.text());
      return false;
    }
    if (!response.ok) throw new Error(await response.text());
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("it has ended");
      buffer += value;
      let end;
      while ((end = buffer.indexOf("\n\n")) >= 0) {
        const fields = buffer.slice(0, end).split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]);
        buffer = buffer.slice(end + 2);
        const data = fields.filter(([name]) => name === "data").map(([, value]) => value).join("\n");
        if (data) receive(fields.find(([name]) => name === "event")?.[1], JSON.parse(data));
      }
    }
  };

  const ask = (why) => {
    set(byId("token-why"), why);
    state.why = "Not let in";
    byId("token-form").hidden = false;
    status();
  };

  const go = async () => {
    for (let pause = 500; ; pause = Math.min(5000, pause * 2)) {
      const began = performance.now();
      try {
        if ((await listen()) === false) return;
      } catch (error) {
        state.why = `No connection: ${error.message}`;
      }
      if (performance.now() - began > 10000) pause = 500;
      status();
      await new Promise((done) => setTimeout(done, pause));
    }
  };

  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = byId("token").value;
    go();
  });
  // One form for each action, and one for the token: the return key in a field does what stands beside it, or nothing.
  byId("action-form").addEventListener("submit", (event) => event.preventDefault());
  const act = async (order) => {
    try {
      const answer = await fetch("act", { method: "POST", headers: authorised(byId("action-token").value), body: JSON.stringify(order) });
      const told = await answer.text();
      set(byId("acted"), answer.ok ? `Done: ${JSON.parse(told).done}.` : told);
    } catch (error) {
      set(byId("acted"), `No answer (${error.message}): whether it was done is not known.`);
    }
  };
  for (const form of document.querySelectorAll("form[data-do]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const order = { pool: state.chosen, do: form.dataset.do };
      if (order.do === "resize") order.max_size = Number(byId("size").value);
      if (order.do === "reclaim") order.site = JSON.parse(byId("leak").value || "null");
      if (order.do === "drain" && !confirm(`Replace every connection of ${order.pool}?`)) return;
      set(byId("acted"), "");
      act(order);
    });
  }
  addEventListener("resize", () => requestAnimationFrame(show));
  setInterval(status, 1000);
  status();
  go();
})();
