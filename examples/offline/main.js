import { createEngine } from "./node_modules/mixdq-web/lib/mixdq-web.js";

const form = document.querySelector("form");
const status = document.querySelector("output");
let engine;

// From here on what this page fetches is kept, the model too.
await navigator.serviceWorker.register("service-worker.js");
if (!navigator.serviceWorker.controller)
  await new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", done, { once: true }));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const prompt = new FormData(form).get("prompt");
  try {
    engine ??= await createEngine({
      model: "models/postcard",
      onProgress: ({ status: stage, progress }) => (status.value = `${stage} ${progress.toFixed()} %`),
    });
    status.value = "drawing";
    const image = await engine.generate({ prompt, seed: 7 });
    document.querySelector("img").src = URL.createObjectURL(image.toBlob());
    status.value = "done";
  } catch (error) {
    status.value = `${error.code}: ${error.message}`;
  }
});
status.value = "ready";
