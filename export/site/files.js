/** The site's files, read only if they are the ones that the site's manifest describes. */

/**
 * The manifest, site.json. index.html holds its hash, the manifest those of all other files: damage,
 * or files of two different builds, are found before anything is computed.
 */
export async function readManifest() {
  if (!globalThis.crypto?.subtle) {
    throw new Error("The browser checks hashes only on https:// and on 127.0.0.1; open the page there.");
  }
  const expected = document.documentElement.dataset.manifest;
  const bytes = await download("site.json", { cache: "no-cache" });
  await check("site.json", bytes, expected);
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** Read the named files; `watch(doneBytes, totalBytes)` hears of the progress. The first error ends all. */
export async function readFiles(site, paths, watch) {
  const total = paths.reduce((sum, path) => sum + site.files[path].bytes, 0);
  const stop = new AbortController();
  let done = 0;
  const progress = (more) => stop.signal.aborted || watch((done += more), total);
  const read = async (path) => {
    const { sha256 } = site.files[path];
    const bytes = await download(`${path}?${sha256.slice(0, 16)}`, { signal: stop.signal }, progress);
    await check(path, bytes, sha256);
    return [path, bytes];
  };
  try {
    return Object.fromEntries(await Promise.all(paths.map(read)));
  } finally {
    stop.abort();
  }
}

export const decodeJson = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

async function download(path, options, watch = () => {}) {
  const name = path.split("?")[0];
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error(`${name} could not be read; check the connection and load the page again.`);
  }
  if (!response.ok) throw new Error(`${name} was not found on the server (status ${response.status}); build the site again.`);
  const parts = [];
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    watch(value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function check(path, bytes, expected) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== expected) {
    throw new Error(`${path} is not the file that the site was built with (SHA-256 ${hex.slice(0, 12)}…, expected ${expected.slice(0, 12)}…); load the page again, or build the site again.`);
  }
}
