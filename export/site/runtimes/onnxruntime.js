/**
 * ONNX Runtime Web.
 *
 * A runtime module exports NAME, its package's, and `load(files, threads)`; that gives an object with
 * `threads` and `open(model, provider)`; that gives a network with `run({name: {dims, data}})`,
 * float32 in and out. Another runtime is another such module, named in worker.js, and its files and
 * routes in export/web_manifest.py.
 */

export const NAME = "onnxruntime-web";
const ERRORS = 3; // its severity; it warns of each initializer of CenterFace

/** Start the runtime from its files, whose hashes were checked: api and glue (JavaScript), wasm. */
export async function load({ api, glue, wasm }, threads) {
  const ort = await import(scriptUrl(api));
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { mjs: scriptUrl(glue) };
  ort.env.wasm.wasmBinary = wasm;
  return {
    open: async (model, provider) => new Network(ort, await open(ort, model, provider)),
    get threads() {
      return ort.env.wasm.numThreads; // 1 where the browser has no threads
    },
  };
}

function open(ort, model, provider) {
  const executionProviders = [provider === "webgpu" ? "webgpu" : "wasm"];
  return ort.InferenceSession.create(model, { executionProviders, logSeverityLevel: ERRORS });
}

class Network {
  constructor(ort, session) {
    Object.assign(this, { ort, session });
  }

  async run(inputs) {
    const feeds = {};
    for (const [name, { dims, data }] of Object.entries(inputs)) {
      feeds[name] = new this.ort.Tensor("float32", data, dims);
    }
    const outputs = await this.session.run(feeds);
    const read = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      read[name] = { dims: tensor.dims, data: await tensor.getData() };
      tensor.dispose();
    }
    return read;
  }
}

/** Code that was read and checked, as a module: the browser does not fetch it again. */
function scriptUrl(bytes) {
  return URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
}
