"use strict";
// Asks for the state every two seconds, for pictures as fast as they come, and only while seen.
const EVERY_MS = 2000;
const POINTS = 300;
const LATE_MS = 8000;
const byId = (id) => document.getElementById(id);
const points = [];
let lastPoint = 0;
let boot = "";
let pictures = new Map();

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else node.setAttribute(name, value);
  }
  // Texts become text nodes: nothing that a device says is ever read as HTML.
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
  return node;
}

const number = (value, digits = 0) =>
  value === undefined || value === null ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: digits });

function bytes(value) {
  if (value === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${number(value, value < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

function duration(seconds) {
  if (!(seconds >= 0)) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${number(seconds / 3600, 1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function clock(ts) {
  const when = new Date(ts * 1000);
  const today = when.toDateString() === new Date().toDateString();
  return make("time", { datetime: when.toISOString(), title: when.toLocaleString() },
    today ? when.toLocaleTimeString("en-GB") : when.toLocaleDateString("en-GB", { day: "numeric", month: "short" }));
}

function line(values, top) {
  let path = "", pen = "M";
  values.forEach((value, i) => {
    if (value === undefined) { pen = "M"; return; }
    path += `${pen}${((POINTS - values.length + i) / (POINTS - 1) * 300).toFixed(1)} ${(44 - value / top * 40).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

function plot(series) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 300 46");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const top = Math.max(1, ...series.flatMap(([, values]) => values.filter((v) => v !== undefined))) * 1.05;
  for (const [kind, path] of [["base", "M0 45L300 45"], ...series.map(([k, v]) => [k, line(v, top)])]) {
    const node = document.createElementNS(space, "path");
    node.setAttribute("class", kind);
    node.setAttribute("d", path);
    svg.append(node);
  }
  return svg;
}

const CAMERA = { online: "good", connecting: "warn", stalled: "bad", failed: "bad", disabled: "calm", ended: "calm" };
const SEVERITY = { info: "calm", warning: "warn", error: "bad" };
const OUTCOME = { COMMITTED: "good", REJECTED: "bad", ROLLED_BACK: "warn", IDLE: "calm" };
const words = (text) => String(text).toLowerCase().replaceAll("_", " ");

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
  byId("large-picture").src = `/live/${encodeURIComponent(name)}`;
  byId("large").showModal();
}

function card(name) {
  const image = make("img", { alt: `Live picture of ${name}`, hidden: "" });
  const text = make("span", {}, "waiting for a picture");
  const button = make("button", { class: "picture", "aria-label": `Enlarge ${name}`, "data-camera": name }, image, text);
  const body = make("div", { class: "pad" });
  const picture = { name, image, text, button, body, node: make("article", { class: "card", "data-name": name }, button, body), number: 0, seen: false, online: false, busy: false };
  button.addEventListener("click", () => { if (picture.online) enlarge(name); });
  seen.observe(button);
  return picture;
}

function showCameras(cameras) {
  const names = Object.keys(cameras);
  for (const name of pictures.keys()) if (!(name in cameras)) pictures.delete(name);
  for (const name of names) {
    if (!pictures.has(name)) pictures.set(name, card(name));
    const picture = pictures.get(name), camera = cameras[name];
    picture.online = camera.state === "online";
    picture.button.classList.toggle("lost", !picture.online);
    picture.text.textContent = picture.online ? "waiting for a picture" : camera.state === "disabled" ? "switched off" : "no picture";
    const series = (key) => points.map((p) => (p.cameras[name] || {})[key]);
    const drops = Object.entries(camera.drops || {});
    const lost = drops.reduce((sum, [, count]) => sum + count, 0);
    picture.body.replaceChildren(
      make("div", { class: "row" }, make("h3", {}, name), make("span", { class: `pill ${CAMERA[camera.state] || "calm"}` }, words(camera.state))),
      camera.reason ? make("p", { class: `why ${CAMERA[camera.state] || "calm"}` }, camera.reason) : "",
      camera.state === "disabled" ? "" : make("div", { class: "plots" },
        make("figure", {}, make("figcaption", {}, "frames a second", make("b", {}, number(camera.fps, 1))), plot([["a", series("fps")]])),
        make("figure", {}, make("figcaption", {}, "latency", make("b", {}, camera.p95 === undefined ? "–" : `${number(camera.p50)} (95 %: ${number(camera.p95)}) ms`)), plot([["a", series("p50")], ["b", series("p95")]]))),
      make("p", { class: "soft" }, `model ${camera.model || "–"} · ${number(camera.results)} frames`, lost ? ` · ${number(lost)} left out (${drops.map(([cause, count]) => `${words(cause)} ${number(count)}`).join(", ")})` : ""));
    follow(picture);
  }
  const box = byId("cameras");
  const wanted = names.length ? names.map((n) => pictures.get(n).node) : [make("p", { class: "card empty" }, "No camera is configured. Add one under cameras: in the configuration and reload the agent.")];
  if (wanted.length !== box.children.length || !names.length || wanted.some((n, i) => box.children[i] !== n)) box.replaceChildren(...wanted);
}

function facts(pairs) {
  return make("dl", { class: "facts" }, ...pairs.filter(([, v]) => v !== undefined && v !== "" && v !== null).flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]));
}

function flat(value, path = "") {
  if (value === null || typeof value !== "object") return [[path, typeof value === "number" ? number(value, 4) : String(value)]];
  if (Array.isArray(value)) return [[path, value.map((v) => (typeof v === "object" ? Object.values(v || {}).join(" ") : v)).join(", ")]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, path ? `${path} ${words(key)}` : words(key)));
}

function showModels(models) {
  byId("models").replaceChildren(...Object.entries(models).map(([slot, model]) => {
    const build = model.build || {}, update = model.update;
    const pill = model.reason ? ["bad", "flagged"] : model.name ? ["good", "serving"] : ["warn", "not loaded"];
    return make("article", { class: "card pad" },
      make("div", { class: "row" }, make("h3", {}, slot), make("span", { class: `pill ${pill[0]}` }, pill[1])),
      model.reason ? make("p", { class: "why bad" }, model.reason) : "",
      facts([["model", model.name], ["engine", model.name ? `${model.precision} on ${model.backend}` : ""], ["digest", (model.digest || "").slice(0, 23)],
        ["classes", (model.names || []).slice(0, 12).join(", ")], ["build", build.state && build.state !== "none" ? `${build.state}${build.step ? `: ${build.step}` : ""}` : ""],
        ["note", build.reason], ["update", update ? `${words(update.state)} ${update.version || ""}` : ""], ["why", update && update.reason]]),
      build.report ? make("details", {}, make("summary", { class: "soft" }, "gate report"), facts(flat(build.report).slice(0, 60))) : "");
  }));
}

function row(at, kind, label, text, extra) {
  return make("li", {}, clock(at), make("span", { class: `pill ${kind}` }, label), make("span", {}, text, extra ? make("div", { class: "soft" }, extra) : ""));
}

function fill(id, rows, none) {
  byId(id).replaceChildren(...(rows.length ? rows : [make("li", { class: "none" }, none)]));
}

function showFigures(state) {
  const host = state.host || {}, broker = state.broker || {}, spool = state.spool || {}, publisher = state.publisher || {};
  const fps = Object.values(state.cameras).reduce((sum, c) => sum + (c.fps || 0), 0);
  const heat = (host.thermal && host.thermal.max_c) ?? host.temperature_max_c;
  const all = [["frames a second", number(fps, 1)], ["broker", broker.connected === undefined ? undefined : broker.connected ? "connected" : "away"],
    ["messages waiting", number((spool.messages || 0) + (publisher.outbox_messages || 0))],
    ["processor", host.cpu_percent === undefined ? undefined : `${number(host.cpu_percent)} %`],
    ["agent's memory", host.process_rss_bytes === undefined ? undefined : bytes(host.process_rss_bytes)],
    ["temperature", heat === undefined ? undefined : `${number(heat)} °C`], ["running for", duration(state.ts - state.started)]];
  byId("figures").replaceChildren(...all.filter(([, v]) => v !== undefined).map(([k, v]) => make("div", {}, make("dt", {}, k), make("dd", {}, v))));
}

function pill(kind, text) {
  byId("state").className = `pill ${kind}`;
  byId("state").textContent = text;
}

function show(state) {
  byId("device").textContent = state.device;
  byId("about").textContent = `Vigia ${state.version}`;
  document.title = `${state.device} · Vigia`;
  const health = state.health, reasons = health.reasons || [];
  const none = !Object.keys(state.cameras).length;
  if (none) pill("warn", "no camera");
  else if (!health.healthy) pill("bad", "in trouble");
  else if (reasons.length || !health.ready) pill("warn", reasons.length ? "degraded" : "starting");
  else pill("good", "all well");
  byId("banner").hidden = !reasons.length;
  byId("banner").className = `banner ${health.healthy ? "warn" : "bad"}`;
  byId("banner").textContent = reasons.join(" · ");
  showFigures(state);
  showCameras(state.cameras);
  showModels(state.models);
  fill("history", state.history.map((past) => row(past.changed, OUTCOME[past.state] || "calm", words(past.state), `${past.slot}: ${past.version || past.family || "?"}`, past.reason)), "No model update has ended on this device yet.");
  fill("events", state.events.slice(-30).reverse().map((e) => row(e.ts, SEVERITY[e.severity] || "calm", e.kind, e.what)), "Nothing has happened yet.");
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
    pill("bad", "agent does not answer");
    byId("banner").hidden = false;
    byId("banner").className = "banner bad";
    byId("banner").textContent = "What you see is old: the agent does not answer. It is asked again every two seconds.";
  }
  setTimeout(turn, EVERY_MS);
}

byId("large").addEventListener("close", () => { byId("large-picture").removeAttribute("src"); for (const p of pictures.values()) follow(p); });
document.addEventListener("visibilitychange", () => { for (const p of pictures.values()) follow(p); });
turn();
