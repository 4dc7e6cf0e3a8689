import { writeFile } from "node:fs/promises";
import { createEngine } from "mixdq-web/node";

const [model = "models/postcard", prompt = "a red house by the sea", out = "picture.png"] = process.argv.slice(2);

const engine = await createEngine({ model });
const image = await engine.generate({ prompt, seed: 7 });
await writeFile(out, image.toBlob().stream());
await engine.dispose();
console.log(`${out}: ${image.width}x${image.height} on ${engine.info.adapter}`);
