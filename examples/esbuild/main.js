import { createEngine } from "mixdq-web";

const form = document.querySelector("form");
const status = document.querySelector("output");
let engine;

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
