/** Faces in a photo, each with five landmarks: CenterFace. Port of detector.py. */

import { roundEven, resize } from "./image.js";

const INPUT = "input.1";
const OUTPUTS = ["537", "538", "539", "540"]; // score, log of the sides, offset, landmarks
const STRIDE = 4; // px of a cell of its outputs
const SIDE_UNIT = 32; // px: the sides of its input are multiples of it
const MIN_SCORE = 0.5;
const MAX_OVERLAP = 0.3; // intersection over union: more is the same face
// Small faces are found better in a photo of twice the size; one over WHOLE_SIDE is looked at
// shrunk as a whole, for its large faces, and in tiles, for its small ones.
const ZOOM = 2;
const WHOLE_SIDE = 1280;
const TILE = 640; // px of the photo
const TILE_OVERLAP = 96;
const MAX_TILE_FACE = TILE_OVERLAP / 2;

/** CenterFace, open in a runtime. A face is {box: [left, top, right, bottom], landmarks, score}. */
export class Detector {
  constructor(network) {
    this.network = network;
  }

  /** The faces of a photo, from the top down. `watch(done, total)` is called after each part. */
  async find(photo, watch) {
    const longest = Math.max(photo.width, photo.height);
    const zoom = Math.min(ZOOM, WHOLE_SIDE / longest);
    const tiles = zoom < ZOOM ? [...places(photo)] : [];
    let found = await this.#look(photo, zoom);
    await watch(1, 1 + tiles.length);
    if (tiles.length) found = found.filter((face) => width(face) * zoom >= 16);
    for (const [number, [x, y]] of tiles.entries()) {
      const tile = photo.crop(x, y, Math.min(TILE, photo.width - x), Math.min(TILE, photo.height - y));
      const here = (await this.#look(tile, ZOOM)).map((face) => moved(face, 1, x, y));
      found.push(...here.filter((face) => width(face) <= MAX_TILE_FACE));
      await watch(2 + number, 1 + tiles.length);
    }
    return distinct(found).sort((a, b) => a.box[1] - b.box[1] || a.box[0] - b.box[0]);
  }

  /** The faces of a photo that is looked at resized by `zoom`. */
  async #look(photo, zoom) {
    const size = [photo.width, photo.height].map((side) => Math.max(1, roundEven(side * zoom)));
    const image = resize(photo, ...size);
    const [columns, rows] = size.map((side) => Math.ceil(side / SIDE_UNIT) * SIDE_UNIT);
    const data = new Float32Array(3 * rows * columns);
    for (let y = 0, from = 0; y < image.height; y++) {
      for (let x = 0; x < image.width; x++) {
        for (let c = 0; c < 3; c++) data[(c * rows + y) * columns + x] = image.data[from++];
      }
    }
    const outputs = await this.network.run({ [INPUT]: { dims: [1, 3, rows, columns], data } });
    return [...decode(OUTPUTS.map((name) => outputs[name]))].map((face) => moved(face, zoom, 0, 0));
  }
}

export const width = (face) => face.box[2] - face.box[0];

function* decode([score, logSides, offset, landmarks]) {
  const [, , rows, columns] = score.dims;
  const plane = rows * columns;
  for (let cell = 0; cell < plane; cell++) {
    if (!(score.data[cell] > MIN_SCORE)) continue;
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

/** Where the parts of a photo that overlap begin. */
function* places({ width: wide, height: high }) {
  const step = TILE - TILE_OVERLAP;
  for (let y = 0; y < Math.max(1, high - TILE_OVERLAP); y += step) {
    for (let x = 0; x < Math.max(1, wide - TILE_OVERLAP); x += step) yield [x, y];
  }
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
