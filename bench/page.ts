/** The page of the paired benchmark: loads an engine per backend and makes pictures when asked. */
import { debug, setDebug } from "../src/base/debug.ts";
import { loadPipeline, type Pipeline } from "../src/pipeline.ts";
import type { Backend, Precision, RawImage } from "../src/base/types.ts";
import { httpFiles } from "../src/weights/http.ts";

const pipelines = new Map<string, Pipeline>();

async function load(backend: Backend, precision: Precision): Promise<string> {
  const files = httpFiles(new URL("/models/postcard", location.href).href);
  const pipeline = await loadPipeline({ files, backend, precision });
  pipelines.set(backend, pipeline);
  return pipeline.info.adapter;
}

async function generate(backend: Backend, prompt: string, seed: number): Promise<RawImage> {
  return pipelines.get(backend)!.generate({ prompt, seed });
}

/** One picture with every dispatch timed; the table's lines are what the debug dial prints at level 2. */
async function profile(backend: Backend, prompt: string): Promise<string[]> {
  const lines: string[] = [];
  const { error } = console;
  console.error = (...parts: unknown[]) => void lines.push(parts.join(" "));
  setDebug(2);
  try {
    await generate(backend, prompt, 1);
  } finally {
    setDebug(0);
    console.error = error;
  }
  return lines.flatMap((text) => text.split("\n")).filter((line) => / x +[\d.]+ ms/.test(line));
}

declare global {
  interface Window {
    bench: { load: typeof load; generate: typeof generate; profile: typeof profile };
  }
}

window.bench = { load, generate, profile };
debug(1, () => "bench page ready");
