/** Keeps what was fetched once: the page, the engine, the model. A new version of any of them needs a new name here. */
const KEPT = "mixdq-1";

/** What the first visit fetched before this worker was there. */
const PAGE = ["./", "main.js", "node_modules/mixdq-web/lib/mixdq-web.js"];

addEventListener("install", (event) => {
  skipWaiting();
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(PAGE)));
});

addEventListener("activate", (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) if (name !== KEPT) await caches.delete(name);
    await clients.claim();
  };
  event.waitUntil(clean());
});

addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && new URL(request.url).origin === location.origin) event.respondWith(answer(request));
});

async function answer(request) {
  const cache = await caches.open(KEPT);
  const known = await cache.match(request, { ignoreVary: true });
  if (known) return known;
  const response = await fetch(request);
  // That a file is not there is worth knowing too: the engine asks for several names. Parts of files are not kept.
  if (response.status === 200 || response.status === 404) await cache.put(request, response.clone());
  return response;
}
