/** Drift: how far a network, run on this device, is from the FP32 model, and how far it may be. Port of drift.py. */

import { Pixels, mseY, psnrOfMse, toPixels, toTensor } from "./image.js";

const ROUNDING_DB = 82; // differences of rounding alone; see drift.py
const SLACK_DB = 2; // under what was measured at build time
const BUDGET_DB = 48.6; // where the FP32 model's PSNR-Y is not known
const EXTREMES_SLACK_DB = 12; // stress probes under the budget, in a backend that was not measured

/** The probes of probes.json: images `lr`, what FP32 makes of them, `sr`; the faces come first. */
export function decodeProbes({ lr, sr, lr_side, sr_side, names, faces }) {
  return { lr: decodeImages(lr, lr_side, names.length), sr: decodeImages(sr, sr_side, names.length), names, faces };
}

function decodeImages(base64, side, count) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const size = side * side * 3;
  if (bytes.length !== size * count) throw new Error(`probes.json holds ${bytes.length} bytes, expected ${size * count}`);
  return Array.from({ length: count }, (_, i) => new Pixels(side, side, bytes.subarray(i * size, (i + 1) * size)));
}

/**
 * Run the faces one by one, as they come in use, and the stress probes as a batch; compare.
 *
 * `watch(done, total, ms)` hears the time of each face; where it returns false, the run is stopped
 * and the result is null. `ms` is the median over the faces after the first, which warms up.
 */
export async function measure(run, probes, watch = () => true) {
  const faces = probes.faces;
  const outputs = [];
  const times = [];
  for (const face of probes.lr.slice(0, faces)) {
    const started = performance.now();
    outputs.push(await run(toTensor([face])));
    times.push(performance.now() - started);
    if ((await watch(outputs.length, probes.lr.length, times.at(-1))) === false) return null;
  }
  outputs.push(await run(toTensor(probes.lr.slice(faces))));
  await watch(probes.lr.length, probes.lr.length, median(times.slice(1)));
  return { ...compare(outputs, probes), ms: median(times.slice(1)) };
}

/** The fidelity of output tensors to FP32's images; zero throughout if one is not finite. */
function compare(outputs, { sr, faces }) {
  if (!outputs.every(({ data }) => data.every(Number.isFinite))) {
    return { fidelity_db: 0, worst_fidelity_db: 0, extremes_fidelity_db: 0, finite: false };
  }
  const errors = outputs.flatMap(toPixels).map((image, i) => mseY(image, sr[i]));
  return {
    fidelity_db: psnrOfMse(mean(errors.slice(0, faces))),
    worst_fidelity_db: psnrOfMse(Math.max(...errors.slice(0, faces))),
    extremes_fidelity_db: psnrOfMse(mean(errors.slice(faces))),
    finite: true,
  };
}

/** The fidelity at which a model of `psnrY` dB is expected to lose `maxDropDb`. */
export function budgetFidelityDb(psnrY, maxDropDb) {
  return psnrY - 10 * Math.log10(10 ** (maxDropDb / 10) - 1);
}

/** The least fidelity of an artifact in a backend: the drift budget, or what was measured if higher. */
export function limit(manifest, backend) {
  const budget = manifest.psnr_y === null ? BUDGET_DB : budgetFidelityDb(manifest.psnr_y, manifest.max_drop_db);
  const measured = manifest.measured_on.filter((each) => each.backend === backend);
  if (!measured.length) return { fidelity_db: budget, extremes_fidelity_db: budget - EXTREMES_SLACK_DB };
  return {
    fidelity_db: Math.max(budget, least(measured.map((each) => each.fidelity_db))),
    extremes_fidelity_db: least(measured.map((each) => each.extremes_fidelity_db)),
  };
}

export function allows(limits, fidelity) {
  return (
    fidelity.finite &&
    fidelity.fidelity_db >= limits.fidelity_db &&
    fidelity.extremes_fidelity_db >= limits.extremes_fidelity_db
  );
}

const least = (values) => Math.min(...values, ROUNDING_DB) - SLACK_DB;
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
