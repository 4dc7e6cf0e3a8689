/** Copies the default model into the folder that is named: what runs it, calibrates it and judges its pictures. */
import { cpSync, rmSync } from "node:fs";
import path from "node:path";

const target = path.resolve(process.argv[2] ?? "");
if (process.argv[2] === undefined) throw new Error("usage: node packaging/model.mjs FOLDER");

/** How it was made and measured is for developers. */
const LEFT_OUT = /^(recipe|quantization|reference\..*|grid\.png)$/;

rmSync(target, { recursive: true, force: true });
cpSync(path.resolve(import.meta.dirname, "../models/postcard"), target, {
  recursive: true,
  filter: (source) => !LEFT_OUT.test(path.basename(source)),
});
