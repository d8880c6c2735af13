/** The worker that runs one network in one provider, with the face detector beside it. */

import { Detector } from "./detector.js";
import { allows, decodeProbes, limit, measure } from "./drift.js";
import { cropFace, fromRgba, resize, toPixels, toRgba, toTensor } from "./image.js";
import { upscalePhoto, widthForFaces } from "./photo.js";
import * as litert from "./runtimes/litert.js";
import * as onnxruntime from "./runtimes/onnxruntime.js";

const RUNTIMES = { [onnxruntime.NAME]: onnxruntime, [litert.NAME]: litert };

const SURE_FACES = 2;

const started = {}; // the runtimes of this worker
let network = null; // {run, detector, lrSide, srSide, faces}: in px, `faces` the least and the most
let wanted = 0; // the number of the newest job: older ones stop

const calls = {
  /** Open the network; which backend it is, and how many threads it has. */
  async open({ provider, model, sides, ...named }) {
    const runtime = await start(named);
    const opened = await runtime.open(model, provider);
    network = { run: async (lr) => (await opened.run({ lr })).sr, ...sides };
    return { backend: `${named.runtime} ${provider}`, version: named.version, threads: runtime.threads };
  },

  /**
   * Run the probes; stopped, and null, if `SURE_FACES` after the first all took more than `mostMs`:
   * one that other work delayed says nothing.
   */
  async verify({ probes, manifest, backend, mostMs }, watch) {
    const times = [];
    const fidelity = await measure(network.run, decodeProbes(probes), async (done, total, ms) => {
      await watch({ done, total });
      times.push(ms);
      return times.length <= SURE_FACES || Math.min(...times.slice(1)) <= mostMs;
    });
    const limits = limit(manifest, backend);
    return fidelity && { fidelity, limits, passed: allows(limits, fidelity) };
  },

  /** Open the face detector, which only the worker that takes photos needs. */
  async openDetector({ model, ...named }) {
    network.detector = new Detector(await (await start(named)).open(model, "wasm"));
  },

  /** The output tensor of an input tensor, for measurements. */
  run: ({ lr }) => network.run(lr),

  /** Upscale a face image, or with `isPhoto` the small faces of a photo. */
  async upscale({ rgba, width, height, isPhoto, shrinkTo }, watch) {
    const image = fromRgba(rgba, width, height);
    const result = isPhoto ? await photo(image, shrinkTo, watch) : await face(image);
    return {
      ...result,
      before: drawable(result.before),
      after: drawable(result.after),
      faces: result.faces.map((each) => (
        each.after ? { ...each, before: drawable(each.before), after: drawable(each.after) } : each
      )),
    };
  },
};

const start = ({ runtime, files, threads }) => (started[runtime] ??= RUNTIMES[runtime].load(files, threads));

async function photo(image, shrinkTo, watch) {
  const size = shrinkTo ? [shrinkTo, Math.max(1, Math.round((image.height * shrinkTo) / image.width))] : null;
  const shown = size ? resize(image, ...size) : image;
  const done = await upscalePhoto(shown, network, (stage, part, of) => watch({ stage, part, of }));
  const left = done.faces.filter((each) => each.leftAs === "large");
  const smaller = left.length ? widthForFaces(shown.width, left, network.lrSide) : null;
  return { ...done, shrinkTo: smaller };
}

async function face(image) {
  const { lrSide, srSide, faces: sides } = network;
  const seen = cropFace(image, sides[0]);
  const started = performance.now();
  const [after] = toPixels(await network.run(toTensor([resize(seen, lrSide, lrSide)])));
  const ms = performance.now() - started;
  return { before: resize(seen, srSide, srSide), after, scale: srSide / seen.width, faces: [{ ms, width: seen.width }] };
}

/** The memory of drawable images, which is handed over instead of copied. */
function buffersOf(result) {
  const faces = result?.faces?.flatMap((each) => [each.before, each.after]) ?? [];
  return [result?.before, result?.after, ...faces].flatMap((image) => image?.rgba?.buffer ?? []);
}

const drawable = (image) => ({ width: image.width, height: image.height, rgba: toRgba(image) });

self.onmessage = async ({ data: { id, name, argument } }) => {
  if (name === "upscale") wanted = id;
  const watch = async (progress) => {
    self.postMessage({ id, progress });
    await new Promise((resume) => setTimeout(resume)); // let a newer job be heard of
    if (name === "upscale" && wanted !== id) throw new Error("superseded");
  };
  try {
    const result = await calls[name](argument, watch);
    self.postMessage({ id, result }, buffersOf(result));
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};
