/**
 * The paired benchmark: the default picture by our kernels and by onnxruntime-web's WebGPU provider, the same graphs,
 * in one browser run on one adapter, alternating, after both have been warmed up and checked against each other.
 *   npm run bench -- [MIXDQ_BENCH_ADAPTER=swiftshader|lavapipe] [MIXDQ_BENCH_RUNS=5]
 */
import path from "node:path";
import { expect, test } from "vitest";
import { createServer } from "vite";
import { launchBrowser, type BrowserAdapter } from "../e2e/browser.ts";
import type { Backend } from "../src/base/types.ts";

const ADAPTER = (process.env["MIXDQ_BENCH_ADAPTER"] ?? "swiftshader") as BrowserAdapter;
const RUNS = Number(process.env["MIXDQ_BENCH_RUNS"] ?? 5);
const PROMPT = "a red house by the sea at sunset with two pine trees";
const BACKENDS = ["webgpu", "ort-webgpu"] as const satisfies readonly Backend[];

test(
  `the default picture, against onnxruntime-web's WebGPU provider, on ${ADAPTER}`,
  { timeout: 1_200_000 },
  async () => {
    const root = path.resolve(import.meta.dirname, "..");
    const server = await createServer({
      root,
      configFile: path.join(root, "vite.config.ts"),
      server: { port: 4183, hmr: false, watch: null },
    });
    await server.listen();
    const browser = await launchBrowser(ADAPTER);
    try {
      const page = await browser.newPage();
      page.setDefaultTimeout(600_000);
      await page.goto(`${server.resolvedUrls!.local[0]}bench/index.html`);
      await page.waitForFunction(() => "bench" in window);
      const adapters = [];
      for (const backend of BACKENDS) adapters.push(await page.evaluate((b) => window.bench.load(b, "fp32"), backend));

      const make = (backend: Backend) =>
        page.evaluate(
          async ([b, prompt]) => {
            const { stats, data } = await window.bench.generate(b, prompt, 1);
            return { stats, pixels: Array.from(data) };
          },
          [backend, PROMPT] as const,
        );
      const pictures = [];
      for (const backend of BACKENDS) pictures.push((await make(backend)).pixels);
      const agreement = psnr(pictures[0], pictures[1]);
      expect(agreement, "both must make the same picture before either is timed").toBeGreaterThan(45);

      const times = { webgpu: [] as number[], "ort-webgpu": [] as number[] };
      const parts: Record<string, number[]> = {};
      for (let run = 0; run < RUNS; run++)
        for (const backend of BACKENDS) {
          const { stats } = await make(backend);
          times[backend].push(stats.totalMs);
          for (const part of ["encodeMs", "unetMs", "decodeMs"] as const)
            (parts[`${backend} ${part}`] ??= []).push(stats[part]);
        }
      const ours = median(times.webgpu);
      const theirs = median(times["ort-webgpu"]);
      const table = await page.evaluate((prompt) => window.bench.profile("webgpu", prompt), PROMPT);
      console.log(
        [
          `${adapters[0]}; Chromium ${browser.version()}; fp32, ${RUNS} runs each, alternating, pictures agree to ${agreement.toFixed(1)} dB`,
          `ours        median ${ours.toFixed(0)} ms (${range(times.webgpu)})`,
          `onnxruntime median ${theirs.toFixed(0)} ms (${range(times["ort-webgpu"])})`,
          ...Object.entries(parts).map(([name, values]) => `  ${name.padEnd(22)} ${median(values).toFixed(0)} ms`),
          `ratio ${(theirs / ours).toFixed(2)}`,
          "",
          ...table,
        ].join("\n"),
      );
      expect(theirs / ours, "times faster than onnxruntime-web").toBeGreaterThanOrEqual(
        ADAPTER === "swiftshader" ? 3 : 1,
      );
    } finally {
      await browser.close();
      await server.close();
    }
  },
);

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

function range(values: readonly number[]): string {
  return `${Math.min(...values).toFixed(0)} to ${Math.max(...values).toFixed(0)}`;
}

function psnr(a: readonly number[], b: readonly number[]): number {
  const error = a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length;
  return 10 * Math.log10(255 ** 2 / error);
}
