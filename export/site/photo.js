/**
 * Photos: find the small faces, upscale each in the training faces' frame, paste it back.
 *
 * Port of photo.py. What a photo knows of a face is kept: the pasted face, shrunk to the photo's
 * size again, is the photo's (one step of back-projection).
 */

import { Frame, complex, divide, multiply, subtract } from "./alignment.js";
import { width } from "./detector.js";
import { Pixels, clamp, resize, roundEven, toPixels, toTensor, transform } from "./image.js";

const MIN_FACE = 8; // px across, the width of the box: smaller ones are left as they are
const MAX_FRAME = 150; // px across, the training faces' frame: larger faces are left as they are
const SMALL_PHOTO = 2 ** 20; // pixels: larger photos are upscaled LARGE_SCALE times
const SCALE = 8;
const LARGE_SCALE = 2;
const REDUCING_SIDE = 16; // px: a network that reads so few of a face of more loses some of it
const CLEAN = 0.65; // of what a network removed, against the finest detail
const NOISY = 0.95;
const LEAST_TRUST = 0.1;
const FEATHER = 24; // px of the 128 over which a pasted face fades into the photo
// Canvases of iOS hold 4096x4096 px and no more; runtime.infer goes on to 32 Mi.
export const MAX_OUTPUT_PIXELS = 4096 * 4096;

/** How much a photo is upscaled: small ones up to 8 times, others twice, as far as a canvas holds. */
export function largestScale({ width, height }) {
  const most = width * height > SMALL_PHOTO ? LARGE_SCALE : SCALE;
  const fits = Math.trunc((MAX_OUTPUT_PIXELS / (height * width)) ** 0.5);
  return Math.max(1, Math.min(most, fits));
}

/**
 * Resize a photo by bicubic interpolation (`before`) and upscale its small faces (`after`).
 *
 * `run` maps a tensor (N, 3, lr, lr) to (N, 3, sr, sr). Each face comes with its box; one that was
 * upscaled also with `ms`, and with `before` and `after`, (sr, sr), another with why it was left.
 */
export async function upscalePhoto(photo, { run, detector, lrSide, srSide }, watch) {
  const scale = largestScale(photo);
  const found = await detector.find(photo, (done, total) => watch("faces", done, total));
  const before = resize(photo, photo.width * scale, photo.height * scale);
  const after = before.copy();
  const faces = [];
  for (const [number, each] of found.entries()) {
    const frame = Frame.around(each.landmarks);
    const face = { box: each.box, score: each.score, width: width(each) };
    face.leftAs = face.width < MIN_FACE ? "small" : frame.side > MAX_FRAME ? "large" : null;
    if (!face.leftAs) {
      const seen = frame.cutOut(photo);
      const started = performance.now();
      const [sr] = toPixels(await run(toTensor([resize(seen, lrSide, lrSide)])));
      face.ms = performance.now() - started;
      face.before = resize(seen, srSide, srSide);
      face.after = keepWhatIsKnown(sr, seen, trust(sr, seen, lrSide));
      paste(after, face.after, frame.scaled(scale));
    }
    faces.push(face);
    await watch("upscale", number + 1, found.length);
  }
  return { before, after, scale, faces };
}

/** The upscaled face, changed by a `share` of the difference so that it shrinks to what was seen. */
export function keepWhatIsKnown(sr, seen, share = 1) {
  const added = resize(missing(sr, seen), sr.width, sr.height);
  const part = Math.fround(share);
  const kept = Uint8Array.from(sr.data, (v, i) =>
    roundEven(clamp(Math.fround(v + Math.fround(part * added.data[i])), 0, 255)));
  return new Pixels(sr.width, sr.height, kept);
}

/**
 * How much of the difference between the result and what was seen is no noise, 0 to 1: all of it for
 * a network that read fewer pixels than were seen; for others see photo.py.
 */
export function trust(sr, seen, lrSide) {
  if (lrSide === REDUCING_SIDE || seen.width > lrSide) return 1;
  const lost = luma(missing(sr, seen));
  const removed = Math.sqrt(lost.reduce((sum, v) => sum + v * v, 0) / lost.length);
  const ratio = removed / Math.max(fineDetail(seen), 1e-6);
  return clamp((NOISY - ratio) / (NOISY - CLEAN), LEAST_TRUST, 1);
}

/** What was seen, less the result at that size; floats. */
function missing(sr, seen) {
  const floats = new Pixels(sr.width, sr.height, Float32Array.from(sr.data));
  const asSeen = resize(floats, seen.width, seen.height);
  return new Pixels(seen.width, seen.height, Float32Array.from(seen.data, (v, i) => v - asSeen.data[i]));
}

/** The deviation, in levels, of noise like the finest detail (Immerkaer, 1996). */
function fineDetail(seen) {
  const { width: wide, height: high } = seen;
  const y = luma(seen);
  const row = (i) => y[i - wide] - 2 * y[i] + y[i + wide];
  let sum = 0;
  for (let top = 1; top < high - 1; top++) {
    for (let left = 1; left < wide - 1; left++) {
      const i = top * wide + left;
      sum += Math.abs(row(i - 1) - 2 * row(i) + row(i + 1));
    }
  }
  return (Math.sqrt(Math.PI / 2) / 6) * (sum / ((wide - 2) * (high - 2)));
}

function luma({ data }) {
  return Float32Array.from({ length: data.length / 3 }, (_, i) =>
    0.257 * data[3 * i] + 0.504 * data[3 * i + 1] + 0.098 * data[3 * i + 2]);
}

/** Lay an upscaled face over the canvas, where its frame lies. */
function paste(canvas, sr, frame) {
  const bounds = frame.bounds.map(Math.trunc);
  const [left, top] = [Math.max(0, bounds[0]), Math.max(0, bounds[1])];
  const right = Math.min(canvas.width, bounds[2] + 1);
  const bottom = Math.min(canvas.height, bounds[3] + 1);
  if (left >= right || top >= bottom) return;
  const [wide, high] = [right - left, bottom - top];
  let face = sr;
  if (frame.side < sr.width) { // it gets smaller: first without a turn, against aliasing
    const side = Math.max(1, roundEven(frame.side));
    face = resize(sr, side, side);
  }
  const back = divide(complex(face.width / sr.width), frame.turn);
  const start = multiply(subtract(complex(left, top), frame.shift), back);
  const laid = transform(face, wide, high, back, start);
  const weights = transform(resize(mask(sr.width), face.width, face.height), wide, high, back, start);
  for (let y = 0, from = 0; y < high; y++) {
    let to = ((top + y) * canvas.width + left) * 3;
    for (let x = 0; x < wide; x++) {
      const weight = Math.fround(weights.data[y * wide + x] / 255);
      for (let c = 0; c < 3; c++, to++, from++) {
        const under = canvas.data[to];
        const added = Math.fround(weight * (laid.data[from] - under));
        canvas.data[to] = roundEven(clamp(Math.fround(under + added), 0, 255));
      }
    }
  }
}

/** How much of the upscaled face is seen, of 255: 0 at the frame's edge, all FEATHER px in. */
function mask(side) {
  const along = Array.from({ length: side }, (_, i) => {
    const fromEdge = clamp(Math.min(i, side - 1 - i) / FEATHER, 0, 1);
    return Math.sin((fromEdge * Math.PI) / 2) ** 2;
  });
  const weights = new Uint8Array(side * side);
  weights.forEach((_, i) => {
    weights[i] = roundEven(along[Math.floor(i / side)] * along[i % side] * 255);
  });
  return new Pixels(side, side, weights, 1);
}

/** The width that a photo must be shrunk to for its widest face to be the network's input. */
export function widthForFaces(photoWidth, faces, lrSide) {
  return Math.max(1, Math.round((photoWidth * lrSide) / Math.max(...faces.map(width))));
}
