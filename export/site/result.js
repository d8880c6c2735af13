/** The result of a photo or of a face: the comparison, the download and the faces one by one. */

import { MAX_ASPECT, toRgba } from "./image.js";
import { milliseconds } from "./status.js";

const element = (id) => document.getElementById(id);
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

export class Result {
  #photo = null;
  #name = "";
  #number = 0;

  constructor(engine, site) {
    Object.assign(this, { engine, site });
    const frame = element("compare").querySelector(".frame");
    const cut = element("cut");
    const move = () => frame.style.setProperty("--cut", `${cut.value}%`);
    this.cutAt = (percent) => {
      cut.value = percent;
      move();
    };
    cut.addEventListener("input", move);
    cut.addEventListener("pointermove", (event) => { // follows the finger or mouse from anywhere
      if (event.buttons) this.cutAt((100 * event.offsetX) / cut.clientWidth);
    });
    element("shrink").addEventListener("click", () => this.#run({ shrinkTo: Number(element("shrink").value) }));
    element("whole").addEventListener("click", () => this.#run({ asFace: true }));
  }

  /** Upscale a decoded image and show what became of it; `asFace`: it is a face, whatever its size. */
  show(photo, name, asFace = false) {
    this.#photo = photo;
    this.#name = name;
    return this.#run({ asFace });
  }

  fail(message) {
    this.#begin();
    this.#end(message, true);
  }

  async #run({ shrinkTo = null, asFace = false }) {
    const number = this.#begin();
    const { rgba, width, height, shrunkFrom } = this.#photo;
    const isPhoto = !asFace && !isFace(this.#photo, this.site.face_image_px);
    const argument = { rgba, width, height, isPhoto, shrinkTo };
    try {
      const result = await this.engine.call("upscale", argument, (progress) => this.#watch(progress));
      if (number === this.#number) this.#present(result, isPhoto, shrunkFrom, shrinkTo);
    } catch (error) {
      if (number === this.#number) this.#end(error.message, true);
    }
  }

  #begin() {
    for (const id of ["compare", "save", "shrink", "whole"]) element(id).hidden = true;
    element("faces").replaceChildren();
    URL.revokeObjectURL(element("download").href);
    element("download").removeAttribute("href");
    element("outcome").className = "";
    element("outcome").textContent = "Looking for faces";
    element("working").hidden = false;
    element("working").removeAttribute("value");
    element("result").hidden = false;
    element("result").scrollIntoView({ block: "nearest" });
    return ++this.#number;
  }

  #watch({ stage, part, of }) {
    element("outcome").textContent = stage === "faces" ? "Looking for faces" : "Upscaling faces";
    element("working").value = part / of;
  }

  #end(message, isBad = false) {
    element("working").hidden = true;
    element("outcome").textContent = message;
    element("outcome").className = isBad ? "bad" : "";
  }

  #present(result, isPhoto, shrunkFrom, shrinkTo) {
    const { before, after, faces } = result;
    this.#end(describe(result, isPhoto, shrunkFrom, shrinkTo));
    element("save").hidden = false;
    const isDone = !isPhoto || faces.some((face) => face.after);
    element("compare").hidden = element("download").hidden = !isDone;
    if (isDone) {
      this.draw(element("before"), before);
      this.draw(element("after"), after);
      element("compare").querySelector(".frame").classList.toggle("small", !isPhoto);
      this.cutAt(middleOf(result));
      this.#offerDownload(after);
    }
    if (isPhoto) element("faces").replaceChildren(...faces.filter((face) => face.after).map((face) => this.#item(face)));
    const shrink = element("shrink");
    shrink.hidden = !result.shrinkTo;
    shrink.value = result.shrinkTo ?? "";
    shrink.textContent = `Shrink the photo to ${this.site.lr_side} px faces and upscale those`;
    element("whole").hidden = !isPhoto || faces.length > 0 || !isFace(this.#photo, this.site.face_px[1]);
  }

  #item(face) {
    const item = document.createElement("li");
    const pair = document.createElement("div");
    for (const [image, label] of [[face.before, "Bicubic"], [face.after, "Upscaled"]]) {
      const canvas = this.draw(document.createElement("canvas"), image);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", label);
      pair.append(canvas);
    }
    const caption = document.createElement("p");
    caption.className = "quiet";
    caption.textContent = `${Math.round(face.width)} px in the photo, ${milliseconds(face.ms)}`;
    item.append(pair, caption);
    return item;
  }

  #offerDownload({ width, height }) {
    const link = element("download");
    const number = this.#number;
    link.textContent = `Download PNG, ${width}x${height}`;
    link.download = `${this.#name}_sr.png`;
    element("after").toBlob((blob) => {
      if (number === this.#number) link.href = URL.createObjectURL(blob);
    }, "image/png");
  }

  draw(canvas, { rgba, width, height }) {
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
    return canvas;
  }

  fromRgb(image) {
    return { rgba: toRgba(image), width: image.width, height: image.height, shrunkFrom: null };
  }
}

/** Whether an image may be a face itself: about square, and not larger. */
function isFace({ width, height }, largest) {
  const [shorter, longer] = [Math.min(width, height), Math.max(width, height)];
  return longer <= largest && longer <= MAX_ASPECT * shorter;
}

/** Where the cut begins, in percent of the width: in the largest face that was upscaled. */
function middleOf({ after, scale, faces }) {
  const [face] = faces.filter((each) => each.after).sort((a, b) => b.width - a.width);
  return face ? (50 * scale * (face.box[0] + face.box[2])) / after.width : 50;
}

function describe({ faces, scale }, isPhoto, shrunkFrom, shrinkTo) {
  if (!isPhoto) return `Face upscaled in ${milliseconds(faces[0].ms)}.`;
  const done = faces.filter((face) => face.after);
  const parts = [];
  if (shrunkFrom) parts.push(`The photo of ${shrunkFrom} was shrunk to what a canvas holds.`);
  if (shrinkTo) parts.push("The photo was shrunk first, so most detail is invented.");
  if (!faces.length) return [...parts, "No face was found."].join(" ");
  if (done.length) {
    const ms = done.reduce((sum, face) => sum + face.ms, 0);
    parts.push(`${count(done.length, "face")} upscaled in ${milliseconds(ms)}, the photo upscaled ${scale} times.`);
  }
  for (const [size, why] of [["large", "large enough to show more than the network would"], ["small", "under 8 px"]]) {
    const left = faces.filter((face) => face.leftAs === size).length;
    if (left) parts.push(`${count(left, "face")} left as ${left === 1 ? "it is" : "they are"}: ${why}.`);
  }
  return parts.join(" ");
}
