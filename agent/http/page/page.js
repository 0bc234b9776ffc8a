"use strict";
// Asks for the state every two seconds, for pictures as fast as they come, and only while seen.
const EVERY_MS = 2000;
const LATE_MS = 8000;
const points = [];
let lastPoint = 0;
let boot = "";
let pictures = new Map();

const CAMERA = { online: "good", connecting: "warn", stalled: "bad", failed: "bad", disabled: "calm", ended: "calm" };
const SEVERITY = { info: "calm", warning: "warn", error: "bad" };
const OUTCOME = { COMMITTED: "good", REJECTED: "bad", ROLLED_BACK: "warn", IDLE: "calm" };
const DOING = { OFFERED: "looked up", TRUSTED: "checked", FETCHING: "fetched", SEALED: "opened", BUILDING: "built",
  GATING: "judged on its golden set", SHADOWING: "compared on live frames", CANARY: "tried out" };

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const picture = pictures.get(entry.target.dataset.camera);
    if (picture) { picture.seen = entry.isIntersecting; follow(picture); }
  }
});

async function follow(picture) {
  if (picture.busy) return;
  picture.busy = true;
  while (pictures.get(picture.name) === picture && picture.seen && picture.online && !document.hidden && !byId("large").open) {
    try {
      const answer = await fetch(`/live/${encodeURIComponent(picture.name)}/picture?after=${picture.number}`);
      if (!answer.ok) { await new Promise((done) => setTimeout(done, 1000)); continue; }
      picture.number = Number(answer.headers.get("X-Picture"));
      const url = URL.createObjectURL(await answer.blob());
      const before = picture.image.src;
      picture.image.src = url;
      picture.image.hidden = false;
      await picture.image.decode().catch(() => {});
      if (before) URL.revokeObjectURL(before);
    } catch { await new Promise((done) => setTimeout(done, EVERY_MS)); }
  }
  picture.busy = false;
}

function enlarge(name) {
  byId("large-name").textContent = name;
  byId("large-picture").alt = `Live picture of ${name}, large`;
  byId("large-picture").src = `/live/${encodeURIComponent(name)}`;
  byId("large").showModal();
}

function card(name) {
  const image = make("img", { alt: `Live picture of ${name}`, hidden: "" });
  const text = make("span", {}, "waiting for a picture");
  const button = make("button", { class: "picture", "aria-label": `Enlarge ${name}`, "data-camera": name }, image, text);
  const body = make("div", { class: "pad" });
  const picture = { name, image, text, button, body, node: make("article", { class: "card", "data-name": name, "aria-label": `Camera ${name}` }, button, body), number: 0, seen: false, online: false, busy: false };
  button.addEventListener("click", () => { if (picture.online) enlarge(name); });
  seen.observe(button);
  return picture;
}

function plots(name, camera) {
  const series = (key) => points.map((p) => (p.cameras[name] || {})[key]);
  const latency = camera.p95 === undefined ? make("b", {}, "–") : make("span", {}, make("b", {}, `${number(camera.p50)} ms`), make("span", { class: "second" }, ` 95 %: ${number(camera.p95)}`));
  return make("div", { class: "plots" },
    make("figure", {}, make("figcaption", {}, "frames a second", make("b", {}, number(camera.fps, 1))), plot([["a", series("fps")]])),
    make("figure", {}, make("figcaption", {}, "latency", latency), plot([["a", series("p50")], ["b", series("p95")]])));
}

function showCamera(name, camera, now) {
  const picture = pictures.get(name), kind = CAMERA[camera.state] || "calm", off = camera.state === "disabled";
  picture.online = camera.state === "online";
  picture.button.classList.toggle("lost", !picture.online);
  picture.button.disabled = !picture.online;
  picture.text.textContent = picture.online ? "waiting for a picture" : off ? "switched off" : "no picture";
  const drops = Object.entries(camera.drops || {});
  const lost = drops.reduce((sum, [, count]) => sum + count, 0);
  const age = camera.since === undefined || picture.online ? "" : `, for ${duration(now - camera.since)}`;
  picture.body.replaceChildren(
    make("div", { class: "row" }, make("h3", {}, name), make("span", { class: `pill ${kind}` }, words(camera.state) + age)),
    camera.reason ? make("p", { class: `why ${kind}` }, camera.reason) : "",
    off ? "" : plots(name, camera),
    make("p", { class: "soft" }, `model ${camera.model || "–"} · ${number(camera.results)} frames`, lost ? ` · ${number(lost)} left out (${drops.map(([cause, count]) => `${words(cause)} ${number(count)}`).join(", ")})` : ""));
  follow(picture);
}

function showCameras(cameras, now) {
  const names = Object.keys(cameras);
  for (const name of pictures.keys()) if (!(name in cameras)) pictures.delete(name);
  for (const name of names) {
    if (!pictures.has(name)) pictures.set(name, card(name));
    showCamera(name, cameras[name], now);
  }
  const box = byId("cameras");
  const wanted = names.length ? names.map((n) => pictures.get(n).node) : [make("p", { class: "card empty" }, "No camera runs. Correct the configuration, or add one under cameras:, and reload the agent.")];
  if (wanted.length !== box.children.length || !names.length || wanted.some((n, i) => box.children[i] !== n)) box.replaceChildren(...wanted);
}

function showModels(models) {
  const told = Object.entries(models).map(([slot, { waiting, waiting_s, busy_s, ...model }]) => [slot, model]);
  if (!changed("models", told)) return;
  if (!told.length) return byId("models").replaceChildren(make("p", { class: "card empty" }, "No model is loaded."));
  byId("models").replaceChildren(...told.map(([slot, model]) => {
    const build = model.build || {};
    const pill = model.reason ? ["bad", "flagged"] : model.name ? ["good", "serving"] : ["warn", "not loaded"];
    const step = build.step ? `: ${build.step}${build.total ? ` (${build.done} of ${build.total})` : ""}` : "";
    return make("article", { class: "card pad", "aria-label": `Model ${slot}` },
      make("div", { class: "row" }, make("h3", {}, slot), make("span", { class: `pill ${pill[0]}` }, pill[1])),
      model.reason ? make("p", { class: "why bad" }, model.reason) : "",
      facts([["model", model.name], ["engine", model.name ? `${model.precision} on ${model.backend}` : ""], ["digest", (model.digest || "").slice(0, 23)],
        ["classes", (model.names || []).slice(0, 12).join(", ")], ["build", build.state && build.state !== "none" ? build.state + step : ""], ["note", build.reason]]),
      build.report ? fold(`build ${slot}`, "gate report of the engine", flat(build.report)) : "");
  }));
}

function row(at, kind, label, text, ...extra) {
  return make("li", {}, at ? clock(at) : make("time", {}, "now"), make("span", { class: `pill ${kind}` }, label), make("span", {}, text, ...extra));
}

function report(key, figures) {
  return figures && Object.keys(figures).length ? fold(key, "gate report", flat(figures)) : "";
}

function running(models) {
  return Object.entries(models).filter(([, m]) => m.update && DOING[m.update.state]).map(([slot, m]) => [slot, m.update, m.build || {}]);
}

function showUpdates(past, models) {
  const now = running(models);
  if (!changed("history", [past, now])) return;
  const rows = now.map(([slot, update, build]) => row(0, "warn", words(update.state), `${slot}: ${update.version || "?"} is being ${DOING[update.state]}`,
    build.step ? make("div", { class: "soft" }, build.step) : "",
    build.total ? make("progress", { max: build.total, value: build.done || 0, "aria-label": `Update of ${slot}` }) : ""));
  rows.push(...past.map((p) => row(p.changed, OUTCOME[p.state] || "calm", words(p.state), `${p.slot}: ${p.version || p.family || "?"}`,
    p.reason ? make("div", { class: "soft" }, p.reason) : "", report(`past ${p.slot} ${p.changed}`, p.figures))));
  byId("history").replaceChildren(...(rows.length ? rows : [make("li", { class: "none" }, "No model was updated on this device yet.")]));
}

function showEvents(events) {
  if (!changed("events", events)) return;
  const rows = events.slice(-30).reverse().map((e) => row(e.ts, SEVERITY[e.severity] || "calm", e.kind, e.what));
  byId("events").replaceChildren(...(rows.length ? rows : [make("li", { class: "none" }, "Nothing has happened yet.")]));
}

function waiting(state) {
  const spool = state.spool || {}, publisher = state.publisher || {};
  return (spool.memory_messages || 0) + (spool.disk_messages || 0) + (publisher.outbox_messages || 0);
}

function showFigures(state) {
  const host = state.host || {}, broker = state.broker || {}, spool = state.spool || {}, power = host.power || {};
  const lost = Object.values(spool.dropped || {}).reduce((sum, count) => sum + count, 0);
  const zones = Object.values(host.thermal || {});
  const heat = zones.length ? Math.max(...zones) : host.temperature_max_c;
  const slowed = (state.governor || {}).level > 0;
  const all = [["frames/s", number(total(state), 1)],
    ["broker", broker.connected === undefined ? undefined : broker.connected ? "connected" : "away", broker.connected === false],
    ["to be sent", number(waiting(state)), broker.connected === false && waiting(state) > 0],
    ["lost messages", lost ? number(lost) : undefined, true],
    ["processor", host.cpu_percent === undefined ? undefined : `${number(host.cpu_percent)} %`],
    ["memory", host.process_rss_bytes === undefined ? undefined : bytes(host.process_rss_bytes)],
    ["temperature", heat === undefined ? undefined : `${number(heat)} °C`, slowed],
    ["power", power.total_w === undefined ? undefined : `${number(power.total_w, 1)} W`], ["running for", duration(state.ts - state.started)]];
  byId("figures").replaceChildren(...all.filter(([, v]) => v !== undefined).map(([k, v, bad]) => make("div", bad ? { class: "off" } : {}, make("dt", {}, k), make("dd", {}, v))));
}

const total = (state) => Object.values(state.cameras).reduce((sum, c) => sum + (c.fps || 0), 0);

function verdict(kind, word, short, reasons) {
  if (!changed("verdict", [kind, word, short, reasons])) return;
  byId("verdict").className = `verdict ${kind}`;
  byId("mark").textContent = { good: "✓", warn: "!", bad: "✕" }[kind] || "…";
  byId("state").textContent = word;
  byId("short").textContent = short;
  byId("reasons").hidden = !reasons.length;
  byId("reasons").replaceChildren(...reasons.map((reason) => make("li", {}, reason)));
}

function judge(state) {
  const health = state.health, reasons = health.reasons || [];
  const wanted = Object.values(state.cameras).filter((c) => c.state !== "disabled");
  const online = wanted.filter((c) => c.state === "online" || c.state === "ended").length;
  const parts = [wanted.length ? `${online} of ${wanted.length} camera${wanted.length > 1 ? "s" : ""} online` : "no camera runs"];
  if (state.broker) parts.push(state.broker.connected ? "broker connected" : "broker away");
  parts.push(...running(state.models).map(([slot, update]) => `${slot}: update to ${update.version || "another model"} under way`));
  for (const [slot, { update }] of Object.entries(state.models)) {
    if (update && (update.state === "REJECTED" || update.state === "ROLLED_BACK")) parts.push(`${slot}: update to ${update.version || "another model"} ${words(update.state)}`);
  }
  if (!health.healthy) return ["bad", "In trouble", parts, reasons];
  if (wanted.length && !online) return health.ready ? ["bad", "No camera online", parts, reasons] : ["wait", "Starting", parts, reasons];
  if (!wanted.length) return ["warn", "No camera", parts, reasons];
  if (reasons.length) return ["warn", "Degraded", parts, reasons];
  return health.ready ? ["good", "All well", parts, reasons] : ["wait", "Starting", parts, reasons];
}

function show(state) {
  byId("device").textContent = state.device;
  byId("about").textContent = `Vigia ${state.version}`;
  const [kind, word, parts, reasons] = judge(state);
  document.title = `${word}: ${state.device} · Vigia`;
  verdict(kind, word, parts.join(" · "), reasons);
  showFigures(state);
  showCameras(state.cameras, state.ts);
  showModels(state.models);
  showUpdates(state.history, state.models);
  showEvents(state.events);
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(LATE_MS) });
  if (answer.status === 401) location.reload();
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function turn() {
  try {
    const state = await ask("/api/status");
    if (state.boot !== boot) { boot = state.boot; points.length = 0; lastPoint = 0; for (const p of pictures.values()) p.number = 0; }
    const news = await ask(`/api/history?after=${lastPoint}`);
    points.push(...news.points);
    points.splice(0, Math.max(0, points.length - POINTS));
    if (points.length) lastPoint = points[points.length - 1].n;
    show(state);
    document.body.dataset.shown = "yes";
  } catch {
    verdict("bad", "Agent does not answer", "What you see is old. It is asked again every two seconds.", []);
    document.title = "Agent does not answer · Vigia";
  }
  setTimeout(turn, EVERY_MS);
}

byId("large").addEventListener("close", () => { byId("large-picture").removeAttribute("src"); for (const p of pictures.values()) follow(p); });
document.addEventListener("visibilitychange", () => { for (const p of pictures.values()) follow(p); });
turn();
