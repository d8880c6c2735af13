/**
 * LiteRT.js: a runtime module as onnxruntime.js is, for files with images one by one, channels last.
 */

export const NAME = "@litertjs/core";
// Its one import loads by address, and it looks for a GPU: both in the code are replaced.
const LOADER = '"@litertjs/wasm-utils"';
const GPU = "Environment.create()";

/** Start the runtime from its files, whose hashes were checked: api and glue (JavaScript), wasm. */
export async function load({ api, glue, wasm }, threads) {
  const quiet = { print() {}, printErr() {} };
  const options = { ...quiet, wasmBinary: wasm, mainScriptUrlOrBlob: new Blob([glue], { type: "text/javascript" }) };
  const { default: factory } = await import(scriptUrl(glue, "\nexport default ModuleFactory;"));
  globalThis.startLiteRt = async (LiteRt) => new LiteRt(await factory(options));
  const loader = scriptUrl("export const createWasmLib = (LiteRt) => globalThis.startLiteRt(LiteRt);");
  const code = new TextDecoder().decode(api).replace(LOADER, JSON.stringify(loader));
  const litert = await import(scriptUrl(code.replace(GPU, "Environment.create({ webGpuDevice: null })")));
  if (!(await litert.supportsFeature("relaxedSimd"))) throw new Error("the browser has no relaxed SIMD");
  await litert.loadLiteRt("", { threads: threads > 1 });
  const how = { accelerator: "wasm", cpuOptions: { numThreads: threads } };
  return {
    threads,
    open: async (model) => new Network(litert, await litert.loadAndCompile(model, how)),
  };
}

class Network {
  constructor(litert, model) {
    Object.assign(this, { litert, model });
  }

  /** One input and one output, (N, C, H, W). */
  async run(inputs) {
    const [[name, { dims, data }]] = Object.entries(inputs);
    const [count, channels, height, width] = dims;
    const size = channels * height * width;
    const images = [];
    for (let n = 0; n < count; n++) {
      const image = moveAxis(data.subarray(n * size, (n + 1) * size), channels, height * width);
      images.push(await this.#runOne(name, image, [1, height, width, channels]));
    }
    const [{ output, shape }] = images;
    const [, high, wide, planes] = shape;
    const made = new Float32Array(count * planes * high * wide);
    images.forEach(({ data: image }, n) => made.set(moveAxis(image, high * wide, planes), n * image.length));
    return { [output]: { dims: [count, planes, high, wide], data: made } };
  }

  async #runOne(name, data, shape) {
    const input = new this.litert.Tensor(data, shape);
    const outputs = await this.model.run({ [name]: input });
    const [[output, tensor]] = Object.entries(outputs);
    const image = { output, data: (await tensor.data()).slice(), shape: [...tensor.type.layout.dimensions] };
    input.delete();
    tensor.delete();
    return image;
  }
}

/** Rows of columns to columns of rows: channels first to last, and back. */
function moveAxis(data, rows, columns) {
  const moved = new Float32Array(data.length);
  for (let row = 0, from = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) moved[column * rows + row] = data[from++];
  }
  return moved;
}

/** Code that was read and checked, as a module: the browser does not fetch it again. */
function scriptUrl(...parts) {
  return URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
}
