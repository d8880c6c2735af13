/** A worker as the page sees it: calls that return promises. */

/**
 * The worker's module is imported by a blob, not opened by its address: a blob's worker inherits the
 * page's content security policy, while one with an address has none unless the server sends it.
 */
function startWorker() {
  const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  return new Worker(url, { type: "module" });
}

export class Engine {
  #worker = startWorker();
  #waiting = new Map();
  #number = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { id, progress, result, error } }) => {
      const call = this.#waiting.get(id);
      if (progress) return call?.watch(progress);
      this.#waiting.delete(id);
      if (error === undefined) call?.resolve(result);
      else call?.reject(new Error(error));
    };
    this.#worker.onerror = (event) => this.#fail(event.message || "the worker could not be started");
  }

  /** Call a function of the worker by its name; `watch` hears of its progress. */
  call(name, argument, watch = () => {}) {
    const id = ++this.#number;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, watch });
      this.#worker.postMessage({ id, name, argument });
    });
  }

  close() {
    this.#worker.terminate();
    this.#fail("closed");
  }

  #fail(reason) {
    for (const { reject } of this.#waiting.values()) reject(new Error(reason));
    this.#waiting.clear();
  }
}
