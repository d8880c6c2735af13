/** Photos from the file chooser, the camera, a drop or the clipboard. */

import { MAX_OUTPUT_PIXELS } from "./photo.js";

const MAX_PIXELS = 64 * 1024 * 1024; // what runtime.infer takes at most

/** Call `take(file)` for each image that is chosen, taken, dropped or pasted. */
export function listenForPhotos(zone, inputs, take) {
  for (const input of inputs) {
    input.addEventListener("change", () => {
      if (input.files.length) take(input.files[0]);
      input.value = ""; // the same file may be chosen again
    });
  }
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(name, (event) => {
      event.preventDefault(); // a photo dropped beside the zone must not replace the page
      zone.classList.toggle("over", name === "dragenter" || name === "dragover");
    });
  }
  addEventListener("drop", ({ dataTransfer }) => dataTransfer.files.length && take(dataTransfer.files[0]));
  addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files.length) take(clipboardData.files[0]);
  });
}

/** Decode an image file, upright and in sRGB, on white: {rgba, width, height, shrunkFrom}. */
export async function readPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} cannot be read as an image by this browser; expected PNG, JPEG or WebP.`);
  }
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) {
    throw new Error(`${file.name} is ${width}x${height}, expected at most ${MAX_PIXELS / 2 ** 20} megapixels; shrink it.`);
  }
  const shrink = Math.min(1, Math.sqrt(MAX_OUTPUT_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(width * shrink));
  canvas.height = Math.max(1, Math.floor(height * shrink));
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const shrunkFrom = shrink < 1 ? `${width}x${height}` : null;
  return { rgba: data, width: canvas.width, height: canvas.height, shrunkFrom };
}
