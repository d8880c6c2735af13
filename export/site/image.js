/**
 * Images: uint8 RGB, resized and transformed exactly as Pillow does it; tensors, luma and PSNR.
 *
 * The port of runtime/image.py. Pillow's arithmetic (libImaging/Resample.c and Geometry.c) is
 * followed to the bit, so that the page cuts out the same face as Python.
 */

export const PSNR_CAP_DB = 100; // identical images
export const MAX_ASPECT = 1.25; // a face image: the longer side against the shorter
const FIXED_POINT = 2 ** 22; // Pillow's weights for 8-bit images are integers of this unit
const SUPPORT = 2; // px on each side that the bicubic filter reads

/** An image of `channels` values a pixel, rows first. `data` is a Uint8Array or a Float32Array. */
export class Pixels {
  constructor(width, height, data, channels = 3) {
    Object.assign(this, { width, height, channels });
    this.data = data ?? new Uint8Array(width * height * channels);
  }

  /** The part at (left, top); what lies beyond an edge repeats its last pixels. */
  crop(left, top, width, height) {
    const { channels } = this;
    const part = new Pixels(width, height, new this.data.constructor(width * height * channels), channels);
    for (let y = 0, to = 0; y < height; y++) {
      const row = clamp(top + y, 0, this.height - 1) * this.width;
      for (let x = 0; x < width; x++) {
        const from = (row + clamp(left + x, 0, this.width - 1)) * channels;
        for (let c = 0; c < channels; c++) part.data[to++] = this.data[from + c];
      }
    }
    return part;
  }

  copy() {
    return new Pixels(this.width, this.height, this.data.slice(), this.channels);
  }
}

/** A canvas's RGBA as RGB; transparency was laid on white when it was drawn. */
export function fromRgba(rgba, width, height) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return new Pixels(width, height, rgb);
}

/** RGB as a canvas takes it. */
export function toRgba({ width, height, data }) {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let from = 0, to = 0; from < data.length; to += 4) {
    rgba[to] = data[from++];
    rgba[to + 1] = data[from++];
    rgba[to + 2] = data[from++];
  }
  return rgba;
}

/** Resize by Pillow's bicubic filter, which averages over more pixels where it shrinks. */
export function resize(image, width, height) {
  const across = width === image.width ? image : resample(image, width, true);
  const done = height === image.height ? across : resample(across, height, false);
  return done === image ? image.copy() : done;
}

/** Resize along one axis: rows (`across`) or columns. */
function resample(image, size, across) {
  const { width, height, channels, data } = image;
  const bytes = data instanceof Uint8Array;
  const { starts, counts, weights, stride } = filterWeights(across ? width : height, size, bytes);
  const [newWidth, newHeight] = across ? [size, height] : [width, size];
  const out = new data.constructor(newWidth * newHeight * channels);
  const step = across ? channels : width * channels; // from one sample to the next
  let to = 0;
  for (let y = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      const at = across ? x : y;
      const first = across ? (y * width + starts[at]) * channels : (starts[at] * width + x) * channels;
      const from = at * stride;
      for (let c = 0; c < channels; c++) {
        let sum = bytes ? FIXED_POINT / 2 : 0;
        for (let k = 0, place = first + c; k < counts[at]; k++, place += step) {
          sum += data[place] * weights[from + k];
        }
        out[to++] = bytes ? clamp(sum >> 22, 0, 255) : sum;
      }
    }
  }
  return new Pixels(newWidth, newHeight, out, channels);
}

/** For each new sample: the first old one it reads, how many, and their weights. */
function filterWeights(oldSize, newSize, bytes) {
  const scale = oldSize / newSize;
  const filterScale = Math.max(scale, 1);
  const support = SUPPORT * filterScale;
  const stride = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(newSize);
  const counts = new Int32Array(newSize);
  const weights = new Float64Array(newSize * stride);
  for (let i = 0; i < newSize; i++) {
    const center = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(oldSize, Math.trunc(center + support + 0.5)) - start;
    const own = weights.subarray(i * stride, i * stride + count);
    let sum = 0;
    for (let k = 0; k < count; k++) {
      own[k] = bicubic((k + start - center + 0.5) * (1 / filterScale));
      sum += own[k];
    }
    for (let k = 0; k < count; k++) {
      if (sum !== 0) own[k] /= sum;
      if (bytes) own[k] = Math.trunc(own[k] * FIXED_POINT + (own[k] < 0 ? -0.5 : 0.5));
    }
    starts[i] = start;
    counts[i] = count;
  }
  return { starts, counts, weights, stride };
}

function bicubic(x) {
  const a = -0.5;
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  if (t < 2) return (((t - 5) * t + 8) * t - 4) * a;
  return 0;
}

/**
 * The image of `width` x `height` whose point z shows what `image` has at turn * z + shift, by
 * Pillow's bicubic interpolation; black beyond its edges. Points are complex: {re, im}.
 */
export function transform(image, width, height, turn, shift) {
  const { channels } = image;
  const out = new Pixels(width, height, undefined, channels);
  let to = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const px = x + 0.5;
      const py = y + 0.5;
      const xin = turn.re * px + -turn.im * py + shift.re;
      const yin = turn.im * px + turn.re * py + shift.im;
      if (xin >= 0 && xin < image.width && yin >= 0 && yin < image.height) {
        interpolate(image, xin - 0.5, yin - 0.5, out.data, to);
      }
      to += channels;
    }
  }
  return out;
}

const rows = new Float64Array(4);

function interpolate({ width, height, channels, data }, xin, yin, out, to) {
  const x = Math.floor(xin);
  const y = Math.floor(yin);
  const dx = xin - x;
  const dy = yin - y;
  const x0 = clamp(x - 1, 0, width - 1) * channels;
  const x1 = clamp(x, 0, width - 1) * channels;
  const x2 = clamp(x + 1, 0, width - 1) * channels;
  const x3 = clamp(x + 2, 0, width - 1) * channels;
  for (let c = 0; c < channels; c++) {
    for (let k = 0; k < 4; k++) {
      const row = y - 1 + k;
      if (k > 0 && (row < 0 || row >= height)) {
        rows[k] = rows[k - 1];
        continue;
      }
      const at = clamp(row, 0, height - 1) * width * channels + c;
      rows[k] = cubic(data[at + x0], data[at + x1], data[at + x2], data[at + x3], dx);
    }
    out[to + c] = clamp(Math.trunc(cubic(rows[0], rows[1], rows[2], rows[3], dy)), 0, 255);
  }
}

function cubic(v1, v2, v3, v4, d) {
  const p2 = -v1 + v3;
  const p3 = 2 * (v1 - v2) + v3 - v4;
  const p4 = -v1 + v2 - v3 + v4;
  return v2 + d * (p2 + d * (p3 + d * p4));
}

/** The central square of a face image. Throws what is wrong with it. */
export function cropFace(image, least) {
  const { width, height } = image;
  const side = Math.min(width, height);
  const size = `The image is ${width}x${height}`;
  if (side < least) throw new Error(`${size}, expected a face of at least ${least}x${least}.`);
  if (Math.max(width, height) > MAX_ASPECT * side) {
    throw new Error(`${size}, expected a face image, about square (at most 5:4). Crop it to the face.`);
  }
  const left = Math.floor((width - side) / 2);
  const top = Math.floor((height - side) / 2);
  return image.crop(left, top, side, side);
}

/** uint8 images of one size to float32 (N, 3, H, W) in [0, 1]. */
export function toTensor(images) {
  const { width, height } = images[0];
  const plane = width * height;
  const data = new Float32Array(images.length * 3 * plane);
  images.forEach((image, n) => {
    for (let i = 0; i < plane; i++) {
      for (let c = 0; c < 3; c++) data[(n * 3 + c) * plane + i] = image.data[i * 3 + c] / 255;
    }
  });
  return { dims: [images.length, 3, height, width], data };
}

/** Float (N, 3, H, W) to N uint8 images: clipped to [0, 1], halves rounded to even. */
export function toPixels({ dims, data }) {
  const [count, channels, height, width] = dims;
  const plane = width * height;
  return Array.from({ length: count }, (_, n) => {
    const image = new Pixels(width, height);
    for (let i = 0; i < plane; i++) {
      for (let c = 0; c < channels; c++) {
        const level = Math.fround(clamp(data[(n * channels + c) * plane + i], 0, 1) * 255);
        image.data[i * 3 + c] = roundEven(level);
      }
    }
    return image;
  });
}

/** The mean squared error of the luma (ITU-R BT.601, [16, 235]) of two images. */
export function mseY(a, b) {
  let sum = 0;
  for (let i = 0; i < a.data.length; i += 3) {
    const difference =
      (65.481 * (a.data[i] - b.data[i]) +
        128.553 * (a.data[i + 1] - b.data[i + 1]) +
        24.966 * (a.data[i + 2] - b.data[i + 2])) / 255;
    sum += difference * difference;
  }
  return sum / (a.data.length / 3);
}

/** PSNR in dB for a mean squared error on the scale of 0 to 255; at most PSNR_CAP_DB. */
export function psnrOfMse(mse) {
  const floor = 255 ** 2 / 10 ** (PSNR_CAP_DB / 10);
  return 10 * Math.log10(255 ** 2 / Math.max(mse, floor));
}

export function clamp(value, low, high) {
  return value < low ? low : value > high ? high : value;
}

/** Rounds halves to even, as Python and NumPy do. */
export function roundEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
