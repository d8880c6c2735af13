/** What the page says of the verification: the verdict line and the table of what was tried. */

import { providerName } from "./selection.js";

const element = (id) => document.getElementById(id);
const db = (value) => `${value.toFixed(1)}\u00a0dB`;
export const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms).toLocaleString("en")}\u00a0ms`;
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

export function showLoading(done, total) {
  say("loading", total ? `Loading, ${megabytes(done)} of ${megabytes(total)} MB` : "Loading");
  showProgress(total ? done / total : undefined);
}

export function showTrying(attempts) {
  const { route, progress } = attempts.at(-1);
  say("loading", `Verifying ${route.label} in ${providerName(route.provider)}`);
  showProgress(progress);
}

/** The verdict; `canFallBack`: a larger model could be loaded where none passed. */
export function showSelection(site, device, { chosen, attempts }, canFallBack) {
  element("progress").hidden = true;
  element("attempts").replaceChildren(...attempts.map((attempt) => row(attempt, chosen)));
  element("details").hidden = false;
  element("made").textContent = madeOf(site);
  if (!chosen) {
    say("failed", "Not verified: nothing on this device gives the results of the FP32 model");
    element("about").textContent = "No photo is taken, because its faces would be wrong.";
    element("details").open = true;
    if (canFallBack) offerFallback();
    return;
  }
  const { fidelity, route, threads, ms } = chosen;
  say("verified", `Verified: ${db(fidelity.fidelity_db)} to FP32 on this device`);
  const where = threads > 1 && route.provider !== "webgpu" ? `WebAssembly, ${threads} threads` : providerName(route.provider);
  const parts = [`${route.label} in ${where}`, `${milliseconds(ms)} a face`];
  element("about").textContent = [`${parts.join(", ")}.`, shareNote(route), threadsNote(device, chosen)].filter(Boolean).join(" ");
}

export function showFailure(message) {
  element("progress").hidden = true;
  say("failed", "Stopped");
  element("about").textContent = message;
}

/** How much of an INT8 file is INT8: some layers are kept in FP32. */
function shareNote({ int8_mac_share: share }) {
  return share ? `${Math.floor(share * 100)} % of its multiply-adds are INT8, the others FP32.` : "";
}

function threadsNote(device, { route }) {
  if (route.provider !== "wasm" || device.isolated) return "";
  return "It runs on one thread, because the server does not send the COOP and COEP headers that threads need.";
}

function offerFallback() {
  const link = document.createElement("a");
  link.href = "?precision=fp32";
  link.textContent = "Try the FP32 model, which is larger and slower";
  element("retry").replaceChildren(link);
  element("retry").hidden = false;
}

function row(attempt, chosen) {
  const { route, fidelity, limits, ms } = attempt;
  const cells = [
    providerName(route.provider),
    route.label,
    fidelity ? db(fidelity.fidelity_db) : "",
    limits ? db(limits.fidelity_db) : "",
    ms ? milliseconds(ms).replace("\u00a0ms", "") : "",
  ];
  const line = document.createElement("tr");
  for (const text of cells) line.insertCell().textContent = text;
  const [text, kind] = outcome(attempt, chosen);
  const last = line.insertCell();
  last.textContent = text;
  last.className = kind;
  line.dataset.state = attempt === chosen ? "used" : attempt.state;
  return line;
}

function outcome(attempt, chosen) {
  if (attempt === chosen) return ["used", "used"];
  if (attempt.state === "passed") return ["passed, slower", "passed"];
  const kind = attempt.state === "drifted" || attempt.state === "failed" ? "bad" : "off";
  return [attempt.reason, kind];
}

function madeOf({ model, tools, runtimes, checkpoint_sha256: checkpoint }) {
  const versions = Object.keys(runtimes).map((name) => `${name} ${tools[name]}`);
  return `${model}, weights ${checkpoint.slice(0, 12)}, ${versions.join(", ")}.`;
}

function say(state, text) {
  element("status").dataset.state = state;
  if (element("verdict").textContent !== text) element("verdict").textContent = text;
}

function showProgress(part) {
  const bar = element("progress");
  bar.hidden = false;
  if (part === undefined) bar.removeAttribute("value");
  else bar.value = part;
}
