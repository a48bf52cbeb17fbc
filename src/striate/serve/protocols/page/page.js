// The page: gives pictures to the server that it comes from, and shows what it answers.

const $ = (id) => document.getElementById(id);
const REFRESH_MS = 2000;
const VEIL = [12, 15, 16]; // over what it did not look at
const VEILED = 0.74; // how opaque that is at most
const PAUSE_MS = 350; // after the last stroke of a drawing, before it is asked about

let models = [];
let asked = null; // the picture of the last question: a Blob
let question = null; // aborts the one that is on its way
let pause = 0;

// What is served

function versionOf(name, number) {
  const found = models.find((model) => model.name === name);
  if (!found) return null;
  return found.versions.find((version) => String(version.version) === number) ?? found.versions[0];
}

const chosen = () => versionOf($("model").value, $("version").value);

function path(verb) {
  const number = $("version").value;
  const version = number && `/versions/${number}`;
  return `/v1/models/${encodeURIComponent($("model").value)}${version}:${verb}`;
}

function fill(select, options) {
  const before = select.value;
  const items = options.map(([value, text]) => new Option(text, value));
  select.replaceChildren(...items);
  if (options.some(([value]) => value === before)) select.value = before;
  select.disabled = options.length < 2;
}

async function lookForModels() {
  models = await (await fetch("/page/models")).json();
  fill($("model"), models.map(({ name }) => [name, name]));
  fillVersions();
}

function fillVersions() {
  const versions = models.find(({ name }) => name === $("model").value)?.versions ?? [];
  const all = versions.map(({ version }) => [String(version), String(version)]);
  fill($("version"), [["", `newest (${versions[0]?.version ?? "none"})`], ...all]);
}

function meet() {
  const version = chosen();
  if (!version) return tell("No model is served at the moment.");
  const picture = version.takes === "picture";
  tell(picture ? "" : `This model takes no pictures (${version.takes}): ask it over gRPC or REST.`);
  $("give").inert = !picture;
  $("explain").hidden = !version.explains;
  if (!version.explains) $("explains").checked = false;
  $("engine").textContent = `${version.engine} · ${version.kernel} · ${version.classes} classes`;
  $("curl").textContent = [
    "curl --data-binary @picture.jpg \\",
    "     -H 'Content-Type: image/jpeg' \\",
    `     '${location.origin}${path("classify")}?top=5'`,
  ].join("\n");
  showExamples(version);
  if (version.paper !== ground) wipe();
}

// A net of small grey pictures is a net of drawings, more often than not
const drawn = ({ takes, input }) => takes === "picture" && input[2] === 1 && input[0] <= 64;

function showExamples(version) {
  const model = encodeURIComponent($("model").value);
  const buttons = Array.from({ length: Math.min(version.examples, 4) }, (_, i) => {
    const image = new Image();
    image.src = `/page/models/${model}/versions/${version.version}/examples/${i}.png`;
    image.alt = `Example ${i + 1}`;
    image.classList.toggle("pixels", version.input[0] < 56);
    const button = document.createElement("button");
    button.type = "button";
    button.append(image);
    button.addEventListener("click", async () => {
      give(await (await fetch(image.src)).blob());
    });
    return button;
  });
  $("examples").replaceChildren(...buttons);
}

// Asking

function give(blob) {
  if (!blob.type.startsWith("image/")) return tell(`“${blob.name}” is no picture.`);
  show("photo");
  URL.revokeObjectURL($("shown").src);
  $("shown").src = URL.createObjectURL(blob);
  $("shown").hidden = $("another").hidden = false;
  $("photo").classList.add("full");
  return ask(blob);
}

async function ask(blob) {
  question?.abort();
  question = new AbortController();
  asked = blob;
  $("heat").hidden = true;
  $("answer").setAttribute("aria-busy", "true");
  const began = performance.now();
  try {
    const verb = $("explains").checked ? "explain" : "classify";
    const response = await fetch(`${path(verb)}?top=5`, {
      method: "POST",
      headers: { "Content-Type": blob.type },
      body: blob,
      signal: question.signal,
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    tell("");
    showAnswer(answer, performance.now() - began);
    if (answer.heat_map) await showHeat(answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    tell(error instanceof TypeError ? "The server does not answer." : error.message);
  }
  $("answer").setAttribute("aria-busy", "false");
  count();
}

const percent = (score) => `${(100 * score).toFixed(score < 0.0995 ? 2 : 1)} %`;
const milliseconds = (ms) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;

function showAnswer({ top, version, engine, compute_ms }, whole) {
  $("empty").hidden = true;
  $("found").hidden = false;
  $("best").textContent = top[0].label;
  $("bars").replaceChildren(...top.map(bar));
  $("took").textContent =
    `Version ${version}, ${milliseconds(compute_ms)} in ${engine}, ` +
    `${milliseconds(whole)} to here and back`;
  $("said").textContent = `${top[0].label}, ${percent(top[0].score)}`;
}

function bar({ label, score }) {
  const item = document.createElement("li");
  const parts = { label, score: percent(score), bar: "" };
  for (const [name, text] of Object.entries(parts)) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    item.append(part);
  }
  item.firstChild.title = label;
  item.style.setProperty("--score", score);
  return item;
}

function tell(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// The map of where it looked, over the picture as the frame shows it

async function showHeat({ heat_map: { b64 }, box }) {
  const bytes = Uint8Array.from(atob(b64), (letter) => letter.charCodeAt(0));
  const levels = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const picture = drawing() ? $("pad") : $("shown");
  await picture.decode?.();
  const width = picture.naturalWidth ?? picture.width;
  const height = picture.naturalHeight ?? picture.height;
  const frame = picture.closest(".frame");
  const side = 2 * frame.clientWidth;
  const scale = side / Math.max(width, height);
  const [left, top] = [(side - scale * width) / 2, (side - scale * height) / 2];
  const canvas = $("heat");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const [across, down] = [scale * width, scale * height];
  context.beginPath();
  context.rect(left, top, across, down);
  context.clip();
  const seen = [left + scale * box[0], top + scale * box[1]];
  const size = [scale * (box[2] - box[0]), scale * (box[3] - box[1])];
  context.fillStyle = `rgba(${VEIL}, ${VEILED})`; // all of it, where the net saw nothing
  context.fillRect(left, top, across, down);
  context.clearRect(...seen, ...size);
  context.drawImage(lit(levels), ...seen, ...size);
  frame.append(canvas);
  canvas.hidden = false;
}

// Grey levels as light: the lower a level, the darker the veil over it
function lit(levels) {
  const canvas = new OffscreenCanvas(levels.width, levels.height);
  const context = canvas.getContext("2d");
  context.drawImage(levels, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < image.data.length; i += 4) {
    const dark = (1 - image.data[i] / 255) ** 1.6;
    image.data.set([...VEIL, 255 * VEILED * dark], i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Drawing

const pad = $("pad").getContext("2d");
let stroke = null; // the last point of the line that is being drawn
let ground = null; // the level of the paper

const drawing = () => document.querySelector("[name=way]:checked").value === "draw";

function show(way) {
  document.querySelector(`[name=way][value=${way}]`).checked = true;
  $("photo").hidden = drawing();
  $("board").hidden = $("clear").hidden = !drawing();
  $("another").hidden = drawing() || $("shown").hidden;
  $("heat").hidden = true;
}

function wipe() {
  ground = chosen()?.paper ?? 255;
  $("heat").hidden = true;
  pad.fillStyle = `rgb(${ground} ${ground} ${ground})`;
  pad.fillRect(0, 0, pad.canvas.width, pad.canvas.height);
  pad.strokeStyle = ground > 127 ? "black" : "white";
  pad.lineWidth = pad.canvas.width / 13;
  pad.lineCap = pad.lineJoin = "round";
}

function point(event) {
  const box = pad.canvas.getBoundingClientRect();
  const scale = pad.canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

function draw(event) {
  if (!stroke) return;
  const next = point(event);
  pad.beginPath();
  pad.moveTo(...stroke);
  pad.lineTo(...next);
  pad.stroke();
  stroke = next;
}

function lift() {
  if (!stroke) return;
  stroke = null;
  clearTimeout(pause);
  pause = setTimeout(() => pad.canvas.toBlob(ask), PAUSE_MS);
}

// How it does

async function count() {
  const version = chosen();
  if (!version || document.hidden) return;
  const { versions } = await (await fetch("/page/counters")).json();
  const found = versions.find(
    (each) => each.model === $("model").value && each.version === version.version,
  );
  const refused = found ? found.requests - (found.codes.OK ?? 0) : 0;
  $("requests").textContent = (found?.requests ?? 0).toLocaleString("en");
  $("refused").textContent = refused.toLocaleString("en");
  for (const name of ["p50", "p99", "queue"]) {
    const ms = found?.[`${name}_ms`];
    $(name).textContent = ms == null ? "–" : milliseconds(ms);
  }
}

async function refresh() {
  try {
    const before = chosen()?.version;
    await lookForModels();
    if (chosen()?.version !== before) meet();
    await count();
  } catch {
    tell("The server does not answer.");
  }
}

// Events

$("model").addEventListener("change", () => {
  fillVersions();
  meet();
  show(drawn(chosen()) && $("shown").hidden ? "draw" : "photo");
  if (asked) ask(asked);
});
$("version").addEventListener("change", () => {
  meet();
  if (asked) ask(asked);
});
$("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) give(target.files[0]);
  target.value = "";
});
$("explains").addEventListener("change", () => asked && ask(asked));
for (const radio of document.querySelectorAll("[name=way]")) {
  radio.addEventListener("change", () => show(radio.value));
}
$("clear").addEventListener("click", () => {
  asked = null;
  wipe();
});
$("pad").addEventListener("pointerdown", (event) => {
  event.target.setPointerCapture(event.pointerId);
  clearTimeout(pause);
  $("heat").hidden = true;
  stroke = point(event);
  draw(event);
});
$("pad").addEventListener("pointermove", draw);
$("pad").addEventListener("pointerup", lift);
$("pad").addEventListener("pointercancel", lift);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("photo").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("photo").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("photo").classList.remove("over");
  if (event.dataTransfer.files[0]) give(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files[0]) give(event.clipboardData.files[0]);
});

await lookForModels();
meet();
if (chosen() && drawn(chosen())) show("draw");
await count();
setInterval(refresh, REFRESH_MS);
