/**
 * Faces in an image, each with five landmarks, from 8 px across to the whole image: CenterFace.
 *
 * Port of detector.py. A face is {box: [left, top, right, bottom], landmarks, score}, in px.
 */

import { Pixels, roundEven, resize } from "./image.js";

const INPUT = "input.1";
const OUTPUTS = ["537", "538", "539", "540"]; // score, log of the sides, offset, landmarks
const STRIDE = 4; // px of a cell of its outputs
const SIDE_UNIT = 32; // px: the sides of its input are multiples of it
const MIN_SCORE = 0.5;
const MIN_TURNED_SCORE = 0.65; // of a face that is only found in the turned image
const MIN_CANDIDATE = 0.15; // of what is looked at again from near
const MAX_OVERLAP = 0.3; // intersection over union: more is the same face
// Small faces are found better in an image of twice the size. A large image is looked at as a whole
// twice, at at most PIXELS for its small faces and at LARGE_SIDE for its large ones; what may be a
// face of fewer than SURE_SIDE px there is looked at again, at its own size.
const ZOOM = 2;
const PIXELS = 3 * 2 ** 20;
const LARGE_SIDE = 640;
const MIN_LARGE_FACE = 16; // px at LARGE_SIDE
const SURE_SIDE = 20;
const UPRIGHT_DEG = 40;
const NEAR_SIDE = 128; // px: the view from near, and the face in it
const NEAR_FACE = 44;
const MAX_CANDIDATES = 400;

export class Detector {
  constructor(network) {
    this.network = network;
  }

  /** The faces of an image, from the top down. `watch(done, total)` is called after each look. */
  async find(image, watch) {
    const found = [];
    for (const face of await this.#find(image, watch)) found.push(await this.#lookUpright(image, face));
    const all = found.length ? found : await this.#findTurned(image);
    return all.sort((a, b) => a.box[1] - b.box[1] || a.box[0] - b.box[0]);
  }

  async #find(image, watch) {
    const zoom = Math.min(ZOOM, (PIXELS / (image.height * image.width)) ** 0.5);
    const large = Math.min(ZOOM, LARGE_SIDE / Math.max(image.height, image.width));
    const seen = await this.#look(image, zoom, zoom < ZOOM ? MIN_CANDIDATE : MIN_SCORE);
    await watch(1, 2);
    if (large < zoom) {
      const whole = await this.#look(image, large, MIN_SCORE);
      seen.push(...whole.filter((face) => width(face) * large >= MIN_LARGE_FACE));
    }
    const sure = [];
    const candidates = [];
    for (const face of distinct(seen)) {
      const isSmall = zoom < ZOOM && width(face) * zoom < SURE_SIDE;
      (isSmall && candidates.length < MAX_CANDIDATES ? candidates : sure).push(face);
    }
    const near = [];
    for (const [number, face] of candidates.entries()) {
      near.push(await this.#findNear(image, face));
      await watch(2 + number, 2 + candidates.length);
    }
    return distinct([...sure.filter((face) => face.score > MIN_SCORE), ...near.filter(Boolean)]);
  }

  /** A face that is known about, looked at from near; null if none is there. */
  async #findNear(image, face) {
    const zoom = NEAR_FACE / Math.max(width(face), 1);
    const [x, y] = center(face);
    const side = NEAR_SIDE / zoom;
    const [left, top] = [x, y].map((middle) => Math.max(0, roundEven(middle - side / 2)));
    const part = within(image, left, top, left + roundEven(side), top + roundEven(side));
    if (!part) return null;
    const seen = await this.#look(part, zoom, MIN_SCORE);
    return best(seen.map((each) => moved(each, 1, left, top)), face);
  }

  /** A face that lies on its side or upside down, as it is seen upright: its eyes are its eyes then. */
  async #lookUpright(image, face) {
    if (isUpright(face)) return face;
    const [x, y] = center(face).map(roundEven);
    const side = roundEven((width(face) * NEAR_SIDE) / NEAR_FACE / 2);
    const [left, top] = [Math.max(0, x - side), Math.max(0, y - side)];
    const part = within(image, left, top, x + side, y + side);
    const seen = [];
    for (const quarters of [1, 2, 3]) {
      const views = await this.#look(turned(part, quarters), NEAR_FACE / width(face), MIN_SCORE);
      for (const view of views.filter(isUpright)) {
        seen.push(moved(turnedBack(view, quarters, part), 1, left, top));
      }
    }
    return best(seen, face) ?? face;
  }

  /** The faces of the image turned by two, one or three quarters: of where most is found. */
  async #findTurned(image) {
    const zoom = Math.min(ZOOM, LARGE_SIDE / Math.max(image.height, image.width));
    const sum = (faces) => faces.reduce((total, face) => total + face.score, 0);
    let most = [];
    for (const quarters of [2, 1, 3]) {
      const found = distinct(await this.#look(turned(image, quarters), zoom, MIN_TURNED_SCORE));
      if (sum(found) > sum(most)) most = found.map((face) => turnedBack(face, quarters, image));
    }
    return most;
  }

  /** The faces of an image that is looked at `zoom` times as large. */
  async #look(image, zoom, least) {
    const size = [image.width, image.height].map((side) => Math.max(1, roundEven(side * zoom)));
    const view = resize(image, ...size);
    const [columns, rows] = size.map((side) => Math.ceil(side / SIDE_UNIT) * SIDE_UNIT);
    const data = new Float32Array(3 * rows * columns);
    for (let y = 0, from = 0; y < view.height; y++) {
      for (let x = 0; x < view.width; x++) {
        for (let c = 0; c < 3; c++) data[(c * rows + y) * columns + x] = view.data[from++];
      }
    }
    const outputs = await this.network.run({ [INPUT]: { dims: [1, 3, rows, columns], data } });
    const faces = decode(OUTPUTS.map((name) => outputs[name]), least);
    return [...faces].map((face) => moved(face, zoom, 0, 0));
  }
}

export const width = (face) => face.box[2] - face.box[0];
const center = ({ box }) => [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];

/** Whether the mouth lies below the eyes, within UPRIGHT_DEG. */
function isUpright({ landmarks: [a, b, , c, d] }) {
  const [across, down] = [0, 1].map((axis) => (c[axis] + d[axis] - a[axis] - b[axis]) / 2);
  return Math.abs((Math.atan2(across, down) * 180) / Math.PI) < UPRIGHT_DEG;
}

/** The surest of the faces that are about where one is known to be. */
function best(faces, known) {
  const [x, y] = center(known);
  const near = faces.filter((face) => {
    const [left, top] = center(face);
    return Math.max(Math.abs(left - x), Math.abs(top - y)) < width(known) / 2;
  });
  return near.reduce((a, b) => (a && a.score >= b.score ? a : b), null);
}

/** The part of an image between two corners, as far as it lies in it; null if nothing does. */
function within(image, left, top, right, bottom) {
  const wide = Math.min(right, image.width) - left;
  const high = Math.min(bottom, image.height) - top;
  return wide > 0 && high > 0 ? image.crop(left, top, wide, high) : null;
}

/** The image turned anticlockwise by so many quarters. */
function turned(image, quarters) {
  if (quarters === 0) return image;
  const { width: wide, height: high, data } = image;
  const out = new Pixels(high, wide);
  for (let y = 0, to = 0; y < wide; y++) {
    for (let x = 0; x < high; x++) {
      const from = (x * wide + wide - 1 - y) * 3;
      for (let c = 0; c < 3; c++) out.data[to++] = data[from + c];
    }
  }
  return turned(out, quarters - 1);
}

/** The face in the image before it was turned by so many quarters. */
function turnedBack({ box, landmarks, score }, quarters, { width: wide, height: high }) {
  const back = ([x, y]) => [[wide - y, x], [wide - x, high - y], [y, high - x]][quarters - 1];
  const corners = [back(box.slice(0, 2)), back(box.slice(2))];
  const [x, y] = [0, 1].map((axis) => corners.map((corner) => corner[axis]));
  return {
    box: [Math.min(...x), Math.min(...y), Math.max(...x), Math.max(...y)],
    landmarks: landmarks.map(back),
    score,
  };
}

function* decode([score, logSides, offset, landmarks], least) {
  const [, , rows, columns] = score.dims;
  const plane = rows * columns;
  for (let cell = 0; cell < plane; cell++) {
    if (!(score.data[cell] > least)) continue;
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    const high = Math.exp(logSides.data[cell]) * STRIDE;
    const wide = Math.exp(logSides.data[plane + cell]) * STRIDE;
    const top = (row + offset.data[cell] + 0.5) * STRIDE - high / 2;
    const left = (column + offset.data[plane + cell] + 0.5) * STRIDE - wide / 2;
    const points = [0, 1, 2, 3, 4].map((i) => [
      landmarks.data[(2 * i + 1) * plane + cell] * wide + left,
      landmarks.data[2 * i * plane + cell] * high + top,
    ]);
    yield { box: [left, top, left + wide, top + high], landmarks: points, score: score.data[cell] };
  }
}

/** The same face, found in a part of a photo at (x, y) that was resized by `scale`. */
function moved({ box, landmarks, score }, scale, x, y) {
  return {
    box: box.map((side, i) => side / scale + (i % 2 ? y : x)),
    landmarks: landmarks.map(([px, py]) => [px / scale + x, py / scale + y]),
    score,
  };
}

/** The surest of those that overlap. */
function distinct(found) {
  const kept = [];
  for (const face of [...found].sort((a, b) => b.score - a.score)) {
    if (kept.every((other) => overlap(face.box, other.box) <= MAX_OVERLAP)) kept.push(face);
  }
  return kept;
}

/** Intersection over union; 1 if the smaller one lies in the other. */
function overlap(a, b) {
  const shared =
    Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) *
    Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const areas = [a, b].map((box) => (box[2] - box[0]) * (box[3] - box[1]));
  if (shared > 0.9 * Math.min(...areas)) return 1;
  return shared / (areas[0] + areas[1] - shared);
}
