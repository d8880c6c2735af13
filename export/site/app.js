/** The page: loads and checks the files, closes all connections, verifies, then takes photos. */

import { decodeProbes } from "./drift.js";
import { decodeJson, readFiles, readManifest } from "./files.js";
import { listenForPhotos, readPhoto } from "./input.js";
import { Result } from "./result.js";
import { NAME as ONNXRUNTIME } from "./runtimes/onnxruntime.js";
import { inspect, select, threadsFor, whyNot } from "./selection.js";
import { showFailure, showLoading, showSelection, showTrying } from "./status.js";

const PROBES = "model/probes.json";
const DETECTOR = "detector/centerface.onnx";
const element = (id) => document.getElementById(id);

async function main() {
  showLoading(0, 0);
  const named = new URLSearchParams(location.search);
  const site = {
    ...(await readManifest()),
    named: named.get("provider"),
    namedRuntime: named.get("runtime"),
  };
  const precision = named.get("precision");
  const device = await inspect();
  const routes = site.routes.filter((route) => (precision ? route.precision === precision : !route.spare));
  const files = await readFiles(site, filesFor(site, routes, device), showLoading);
  closeConnections();
  const probes = decodeJson(files[PROBES]);
  const open = (route) => opened(site, route, device, files, probes);
  const selection = await select(site, routes, device, open, showTrying);
  const canFallBack = !precision && site.routes.some((route) => route.spare);
  showSelection(site, device, selection, canFallBack);
  globalThis.selection = selection; // for benchmarks.studies.browser and the tests
  if (!selection.engine) return;
  const { provider } = selection.chosen.route;
  await selection.engine.call("openDetector", {
    ...runtimeOf(site, ONNXRUNTIME, provider, files),
    threads: threadsFor(provider, device),
    model: files[DETECTOR],
  });
  takePhotos(site, selection.engine, decodeProbes(probes));
}

/** All that the routes that can be tried here will need. */
function filesFor(site, routes, device) {
  const possible = routes.filter((route) => !whyNot(route, device, site));
  const paths = possible.flatMap((route) => [
    ...Object.values(site.runtimes[route.runtime][route.provider]),
    ...Object.values(site.runtimes[ONNXRUNTIME][route.provider]), // for the detector
    route.artifact,
    `${route.artifact}.json`,
  ]);
  return [...new Set([PROBES, DETECTOR, ...paths])];
}

/** What the worker needs to open a route and to judge it. */
function opened(site, route, device, files, probes) {
  return {
    probes,
    manifest: decodeJson(files[`${route.artifact}.json`]),
    network: {
      ...runtimeOf(site, route.runtime, route.provider, files),
      provider: route.provider,
      threads: threadsFor(route.provider, device),
      model: files[route.artifact],
      sides: {
        lrSide: site.lr_side,
        srSide: site.sr_side,
        faces: site.face_px,
      },
    },
  };
}

/** A runtime's name, version and files. */
function runtimeOf(site, runtime, provider, files) {
  const parts = Object.entries(site.runtimes[runtime][provider]);
  const read = Object.fromEntries(parts.map(([part, path]) => [part, files[path]]));
  return { runtime, version: site.tools[runtime], files: read };
}

/**
 * From here on nothing can be sent or fetched, not even from this site's own server: a second policy
 * is added, both hold, and the workers that are made after it inherit them.
 */
function closeConnections() {
  const policy = document.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = "connect-src 'none'; img-src blob:; style-src 'none'; font-src 'none'; media-src 'none'; frame-src 'none'";
  document.head.append(policy);
}

function takePhotos(site, engine, probes) {
  const result = new Result(engine, site);
  element("sizes").textContent = `Its small faces are upscaled, from 8 px across; a square image of up to ${site.face_image_px} px is taken for a face.`;
  element("input").inert = false;
  listenForPhotos(element("drop"), [element("file"), element("camera")], async (file) => {
    try {
      result.show(await readPhoto(file), file.name.replace(/\.[^.]*$/, ""));
    } catch (error) {
      result.fail(error.message);
    }
  });
  showSamples(probes, result);
}

/** The probe faces as buttons. */
function showSamples(probes, result) {
  probes.lr.slice(0, probes.faces).forEach((face, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Synthetic face ${number + 1}`);
    button.append(result.draw(document.createElement("canvas"), result.fromRgb(face)));
    button.onclick = () => result.show(result.fromRgb(face), `synthetic-face-${number + 1}`, true);
    element("samples").append(button);
  });
  element("samples").parentElement.hidden = false;
}

main().catch((error) => showFailure(error.message));
