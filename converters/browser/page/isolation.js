// Threads need two headers (COOP and COEP). Where the server does not send them, a service worker adds them.

/** Register the service worker if it can help; the page is then loaded once more, and the promise does not resolve. */
export async function isolate() {
  const canHelp = !globalThis.crossOriginIsolated && globalThis.isSecureContext && "serviceWorker" in navigator;
  if (!canHelp || sessionStorage.getItem("isolated") === "tried") return;
  sessionStorage.setItem("isolated", "tried"); // never reload twice
  try {
    await navigator.serviceWorker.register("service-worker.js");
    await navigator.serviceWorker.ready;
  } catch {
    return; // the model runs with one thread
  }
  location.reload();
  await new Promise(() => {});
}
