/** The training faces' frame: where it lies in a photo, by a face's landmarks. Port of alignment.py. */

import { roundEven, transform } from "./image.js";

export const SR_SIDE = 128;
const LEAST_SIDE = 16; // px that a face is cut out with
// Where CenterFace sees the landmarks of the training faces, in px of 128x128.
export const LANDMARKS = [[45.9, 47.1], [82.1, 47.7], [63.2, 66.9], [47.7, 82.2], [77.6, 82.6]];

export const complex = (re, im = 0) => ({ re, im });
export const subtract = (a, b) => complex(a.re - b.re, a.im - b.im);
export const multiply = (a, b) => complex(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re);
export const divide = (a, b) => {
  const square = b.re ** 2 + b.im ** 2;
  return complex((a.re * b.re + a.im * b.im) / square, (a.im * b.re - a.re * b.im) / square);
};

/** The frame in a photo: a point z = x+iy of the 128x128 face lies at turn * z + shift. */
export class Frame {
  constructor(turn, shift) {
    Object.assign(this, { turn, shift });
  }

  /** Turned, scaled and shifted to a face's five landmarks, in px, by least squares. */
  static around(landmarks) {
    const frame = LANDMARKS.map(([x, y]) => complex(x, y));
    const photo = landmarks.map(([x, y]) => complex(x, y));
    const [frameMean, photoMean] = [mean(frame), mean(photo)];
    let product = complex(0);
    let square = 0;
    frame.forEach((point, i) => {
      const centered = subtract(point, frameMean);
      const conjugate = complex(centered.re, -centered.im);
      const there = multiply(conjugate, subtract(photo[i], photoMean));
      product = complex(product.re + there.re, product.im + there.im);
      square += centered.re ** 2 + centered.im ** 2;
    });
    const turn = complex(product.re / square, product.im / square);
    return new Frame(turn, subtract(photoMean, multiply(turn, frameMean)));
  }

  /** How many px of the photo it is across. */
  get side() {
    return Math.hypot(this.turn.re, this.turn.im) * SR_SIDE;
  }

  /** Left, top, right and bottom of its corners, in px of the photo; they may lie outside. */
  get bounds() {
    const corners = [complex(0), complex(SR_SIDE), complex(0, SR_SIDE), complex(SR_SIDE, SR_SIDE)];
    const there = corners.map((corner) => {
      const turned = multiply(this.turn, corner);
      return complex(turned.re + this.shift.re, turned.im + this.shift.im);
    });
    const x = there.map(({ re }) => re);
    const y = there.map(({ im }) => im);
    return [Math.min(...x), Math.min(...y), Math.max(...x), Math.max(...y)];
  }

  /** The same frame in the photo `scale` times as large. */
  scaled(scale) {
    const times = ({ re, im }) => complex(re * scale, im * scale);
    return new Frame(times(this.turn), times(this.shift));
  }

  /** What the photo shows there, as many px across as it has there, 16 at least. */
  cutOut(photo) {
    const [left, top, right, bottom] = this.bounds.map(Math.trunc);
    const [x, y] = [left - 2, top - 2];
    const around = photo.crop(x, y, right + 3 - x, bottom + 3 - y);
    const side = Math.max(LEAST_SIDE, roundEven(this.side));
    const zoom = SR_SIDE / side;
    const turn = complex(this.turn.re * zoom, this.turn.im * zoom);
    return transform(around, side, side, turn, subtract(this.shift, complex(x, y)));
  }
}

function mean(points) {
  const sum = points.reduce((a, b) => complex(a.re + b.re, a.im + b.im));
  return complex(sum.re / points.length, sum.im / points.length);
}
