/** Selection: every provider runs the probes on this device; the fastest that passes is used. */

import { Engine } from "./engine.js";
import { NAME as LITERT } from "./runtimes/litert.js";

const MAX_THREADS = 4; // more cores of a phone are slow ones
const MUCH_SLOWER = 4; // times the best: the probes of such a provider are stopped
const PROVIDERS = {
  "wasm-threads": "WebAssembly, threads",
  wasm: "WebAssembly, one thread",
  webgpu: "WebGPU",
};

export const providerName = (provider) => PROVIDERS[provider];

/** What this browser and this server allow. */
export async function inspect() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const info = adapter?.info;
  return {
    isolated: globalThis.crossOriginIsolated === true,
    cores: navigator.hardwareConcurrency || 1,
    hasGpuInterface: Boolean(navigator.gpu),
    savesData: navigator.connection?.saveData === true,
    gpu: adapter ? [info?.vendor, info?.architecture].filter(Boolean).join(" ") || "GPU" : null,
    isSoftwareGpu: Boolean(info?.isFallbackAdapter ?? adapter?.isFallbackAdapter),
    gpuFeatures: new Set(adapter?.features ?? []),
  };
}

/** Why a route cannot be taken here, or null. A provider that was `named` may be a slow one. */
export function whyNot(route, device, { named, namedRuntime }) {
  if (named && route.provider !== named) return `not tried: ?provider=${named}`;
  if (namedRuntime && route.runtime !== namedRuntime) return `not tried: ?runtime=${namedRuntime}`;
  if (route.runtime === LITERT && device.savesData && !namedRuntime) return "the browser asks to save data";
  if (route.provider === "wasm-threads" && !device.isolated) {
    return "the server does not send the headers that threads need (COOP and COEP)";
  }
  if (route.provider === "wasm-threads" && device.cores < 2) return "one processor core";
  if (route.provider === "webgpu") {
    if (!device.hasGpuInterface) return "this browser has no WebGPU";
    if (!device.gpu) return "no GPU that the browser may use";
    if (device.savesData && !named) return "the browser asks to save data";
    if (device.isSoftwareGpu && !named) return "no GPU: the browser would emulate one";
    const missing = route.needs.filter((feature) => !device.gpuFeatures.has(feature));
    if (missing.length) return `the GPU has no ${missing.join(", ")}`;
  }
  return null;
}

/**
 * Try the routes in their order and keep the fastest that passes.
 *
 * A `spare` route is tried only if none before it passed, and a provider with a passed route is not
 * tried again with a larger file in the same runtime. `watch(attempts)` hears of every change. Returns the engine
 * (null if none passed), its attempt, and all attempts.
 */
export async function select(site, routes, device, open, watch) {
  const attempts = [];
  let best = null;
  for (const route of routes) {
    const attempt = { route, state: "running", reason: "" };
    attempts.push(attempt);
    const again = attempts.some((other) => other.state === "passed" && isAlike(other.route, route));
    const reason = whyNot(route, device, site) ?? (again || (route.spare && best) ? "not needed" : null);
    if (reason) {
      Object.assign(attempt, { state: reason === "not needed" ? "spared" : "unavailable", reason });
      continue;
    }
    watch(attempts);
    const engine = new Engine();
    await tryRoute(engine, attempt, await open(route, device), best, () => watch(attempts));
    if (attempt.state === "passed" && (!best || attempt.ms < best.attempt.ms)) {
      best?.engine.close();
      best = { engine, attempt };
    } else {
      engine.close();
    }
  }
  watch(attempts);
  return { engine: best?.engine ?? null, chosen: best?.attempt ?? null, attempts };
}

const isAlike = (one, other) => one.provider === other.provider && one.runtime === other.runtime;

/** Open one route, run its probes and write the outcome into its attempt. */
async function tryRoute(engine, attempt, { network, probes, manifest }, best, watch) {
  try {
    const opened = await engine.call("open", network);
    Object.assign(attempt, opened);
    const mostMs = best ? MUCH_SLOWER * best.attempt.ms : Infinity;
    const verdict = await engine.call("verify", { probes, manifest, backend: opened.backend, mostMs }, ({ done, total }) => {
      attempt.progress = done / total;
      watch();
    });
    if (!verdict) {
      Object.assign(attempt, { state: "stopped", reason: `over ${MUCH_SLOWER} times as slow; its probes were stopped` });
      return;
    }
    const { fidelity, limits, passed } = verdict;
    Object.assign(attempt, { fidelity, limits, ms: fidelity.ms, state: passed ? "passed" : "drifted" });
    attempt.reason = passed ? "" : describeDrift(fidelity, limits);
  } catch (error) {
    Object.assign(attempt, { state: "failed", reason: error.message });
  }
}

function describeDrift(fidelity, limits) {
  if (!fidelity.finite) return "gives numbers that are not finite";
  const { fidelity_db: faces, extremes_fidelity_db: stress } = fidelity;
  return (
    `drifts from FP32: ${faces.toFixed(1)} dB on faces, ${stress.toFixed(1)} on stress probes; ` +
    `at least ${limits.fidelity_db.toFixed(1)} and ${limits.extremes_fidelity_db.toFixed(1)} are needed`
  );
}

export const threadsFor = (provider, { isolated, cores }) =>
  provider === "wasm" || !isolated ? 1 : Math.min(MAX_THREADS, cores);
