// Adds the headers that threads need, on hosts that cannot set headers. Nothing is cached here.

// The types of the page's other modules are those of a window.
const worker = /** @type {any} */ (self);
worker.addEventListener("install", () => worker.skipWaiting());
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(worker.clients.claim()));

worker.addEventListener("fetch", (/** @type {any} */ event) => {
  if (new URL(event.request.url).origin !== self.location.origin) return;
  event.respondWith(answer(event.request));
});

/** @param {Request} request */
async function answer(request) {
  const response = await fetch(request);
  if (response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
