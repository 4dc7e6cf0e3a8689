#!/usr/bin/env bash
# onnxruntime-web's fused attention on WebGPU gives wrong numbers where a subgroup has four lanes, by the number of queries.
#
# Guess: an operator that an adapter cannot run as its kernel is written takes another path or fails; subgroup sizes differ
#   from 4 to 128, and a kernel that shuffles asks subgroupMinSize first. On a software adapter things are slow, not wrong.
# Seen: com.microsoft.MultiHeadAttention (two heads of 64) on SwiftShader, whose subgroups are 4 wide: up to 31 queries right
#   to 1e-6, from 32 on wrong by 0.01 to 0.2 where the values themselves come to 0.3 - 0.5, whatever the number of keys. From
#   there on a kernel after FlashAttention runs, which hands keys around within a subgroup. No error and no warning, and the
#   outputs look plausible: they are averages of values, of the wrong ones. The same operator spelled out (MatMul, Softmax,
#   MatMul) is right on the same adapter.
# Cost: continuous integration has no GPU; a comparison of one's own pictures with onnxruntime-web's there blames one's own
#   kernels, or freezes wrong pictures as golden ones. A test of the operator with a few tokens passes.
# Way out: run a known attention of at least 64 queries once per adapter, and spell the operator out where it is wrong.
#
# Runs in @sparticuz/chromium on its software adapter, SwiftShader: Linux, x86-64, about 400 MB of packages, a minute.
# Other versions: ORT=x.y.z PLAYWRIGHT=x.y.z SPARTICUZ=x.y.z. Exit: 0 as described, 1 changed, 2 it could not be tried.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
npm install --prefix "$tmp" --ignore-scripts --no-audit --no-fund --loglevel=error "onnxruntime-web@${ORT:-1.30.0}" \
  "playwright-core@${PLAYWRIGHT:-1.65.1}" "@sparticuz/chromium@${SPARTICUZ:-153.0.0}" > /dev/null || exit 2

cat > page.mjs << 'EOF'
import * as ort from "/ort.webgpu.bundle.min.mjs";

ort.env.wasm.wasmPaths = "/";
ort.env.wasm.numThreads = 1;

// As much of ONNX's protobuf as these graphs need.
const FLOAT = 1;
const HEADS = 2;
const WIDTH = 128;
const SIZE = WIDTH / HEADS;
const varint = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...varint(n >>> 7)]);
const bytes = (field, content) => [...varint((field << 3) | 2), ...varint(content.length), ...content];
const text = (field, value) => bytes(field, new TextEncoder().encode(value));
const number = (field, value) => [...varint(field << 3), ...varint(value)];
const attribute = ([name, value]) =>
  Array.isArray(value)
    ? bytes(5, [...text(1, name), ...value.flatMap((x) => number(8, x)), ...number(20, 7)])
    : bytes(5, [...text(1, name), ...number(3, value), ...number(20, 2)]);
const node = (op, inputs, output, attributes = {}, domain = "") => {
  const names = [...inputs.flatMap((name) => text(1, name)), ...text(2, output), ...text(4, op), ...text(7, domain)];
  return bytes(1, [...names, ...Object.entries(attributes).flatMap(attribute)]);
};
const constant = (name, shape, type, values) => {
  const dims = shape.flatMap((size) => number(1, size));
  return bytes(5, [...dims, ...number(2, type), ...text(8, name), ...bytes(9, new Uint8Array(values.buffer))]);
};
const value = (field, name, shape) => {
  const dims = bytes(2, shape.flatMap((size) => bytes(1, number(1, size))));
  return bytes(field, [...text(1, name), ...bytes(2, bytes(1, [...number(1, FLOAT), ...dims]))]);
};
const model = (queries, keys, parts) => {
  const values = [value(11, "q", [1, queries, WIDTH]), value(11, "k", [1, keys, WIDTH]), value(12, "y", [1, queries, WIDTH])];
  const opsets = [...bytes(8, [...text(1, ""), ...number(2, 21)]), ...bytes(8, [...text(1, "com.microsoft"), ...number(2, 1)])];
  return Uint8Array.from([...number(1, 10), ...bytes(7, [...parts, ...values].flat().concat(text(2, "g"))), ...opsets]);
};
/** The keys are the values too. */
const GRAPHS = {
  fused: [node("MultiHeadAttention", ["q", "k", "k"], "y", { num_heads: HEADS }, "com.microsoft")],
  "spelled out": [
    constant("split", [4], 7, BigInt64Array.of(1n, -1n, BigInt(HEADS), BigInt(SIZE))),
    constant("join", [3], 7, BigInt64Array.of(1n, -1n, BigInt(WIDTH))),
    constant("scale", [], FLOAT, Float32Array.of(1 / Math.sqrt(SIZE))),
    node("Reshape", ["q", "split"], "q4"),
    node("Reshape", ["k", "split"], "k4"),
    node("Transpose", ["q4"], "qt", { perm: [0, 2, 1, 3] }),
    node("Transpose", ["k4"], "kt", { perm: [0, 2, 3, 1] }),
    node("Transpose", ["k4"], "vt", { perm: [0, 2, 1, 3] }),
    node("MatMul", ["qt", "kt"], "products"),
    node("Mul", ["products", "scale"], "scores"),
    node("Softmax", ["scores"], "weights"),
    node("MatMul", ["weights", "vt"], "sums"),
    node("Transpose", ["sums"], "back", { perm: [0, 2, 1, 3] }),
    node("Reshape", ["back", "join"], "y"),
  ],
};

/** Plain loops in double precision. */
function expected(q, k, queries, keys) {
  const y = new Float64Array(queries * WIDTH);
  for (let row = 0; row < queries; row++)
    for (let head = 0; head < HEADS; head++) {
      const at = head * SIZE;
      const powers = Array.from({ length: keys }, (_, key) => {
        let score = 0;
        for (let c = at; c < at + SIZE; c++) score += q[row * WIDTH + c] * k[key * WIDTH + c];
        return Math.exp(score / Math.sqrt(SIZE));
      });
      const total = powers.reduce((a, b) => a + b);
      for (let c = at; c < at + SIZE; c++)
        y[row * WIDTH + c] = powers.reduce((sum, power, key) => sum + (power / total) * k[key * WIDTH + c], 0);
    }
  return y;
}

const rows = [];
for (const [queries, keys] of [[16, 77], [31, 77], [32, 77], [64, 77], [64, 64], [32, 16], [256, 256]]) {
  const q = Float32Array.from({ length: queries * WIDTH }, (_, i) => Math.sin(i * 1.7));
  const k = Float32Array.from({ length: keys * WIDTH }, (_, i) => Math.sin(i * i * 0.37));
  const right = expected(q, k, queries, keys);
  const row = { queries, keys, largest: Math.max(...right) };
  for (const [graph, provider] of [["fused", "wasm"], ["fused", "webgpu"], ["spelled out", "webgpu"]]) {
    const bytes = model(queries, keys, GRAPHS[graph]);
    const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider] });
    const feeds = { q: new ort.Tensor("float32", q, [1, queries, WIDTH]), k: new ort.Tensor("float32", k, [1, keys, WIDTH]) };
    const y = await (await session.run(feeds)).y.getData();
    row[`${graph}, ${provider}`] = Math.max(...y.map((v, i) => Math.abs(v - right[i])));
    await session.release();
  }
  rows.push(row);
}
const { architecture, subgroupMinSize } = (await navigator.gpu.requestAdapter()).info;
window.found = { version: ort.env.versions.web, adapter: `${architecture}, subgroups of ${subgroupMinSize}`, rows };
EOF

cat > show.mjs << 'EOF'
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import bundled from "@sparticuz/chromium";
import { chromium } from "playwright-core";

// What fails here is not the behaviour that is looked at.
process.on("uncaughtException", (error) => {
  console.error(error);
  process.exit(2);
});
const TYPES = { mjs: "text/javascript", wasm: "application/wasm", html: "text/html" };
const server = createServer(async ({ url }, response) => {
  const name = url === "/" ? "index.html" : url.slice(1);
  response.setHeader("content-type", TYPES[name.split(".").at(-1)] ?? "text/plain");
  if (name === "index.html") return response.end('<!doctype html><script type="module" src="page.mjs"></script>');
  const file = name === "page.mjs" ? name : `node_modules/onnxruntime-web/dist/${name}`;
  response.end(await readFile(file).catch(() => response.writeHead(404) && ""));
}).listen(0, "127.0.0.1");
const executablePath = await bundled.executablePath();
const software = ["--use-vulkan=swiftshader", "--use-angle=swiftshader", "--enable-features=Vulkan"];
const browser = await chromium.launch({
  executablePath,
  env: { ...process.env, LD_LIBRARY_PATH: `${process.env.TMPDIR}/al2023/lib` },
  args: ["--no-sandbox", "--enable-unsafe-webgpu", "--ignore-gpu-blocklist", ...software],
  timeout: 180_000,
});
const page = await browser.newPage();
page.setDefaultTimeout(180_000);
page.on("pageerror", (error) => console.error(error.message));
await page.goto(`http://127.0.0.1:${server.address().port}/`);
await page.waitForFunction(() => window.found, undefined, { timeout: 600_000 });
const { version, adapter, rows } = await page.evaluate(() => window.found);
console.log(`onnxruntime-web ${version}, Chromium ${browser.version()}, adapter: ${adapter}\n`);
await browser.close();
server.close();

let changed = 0;
console.log("queries keys  largest value   largest error: fused, wasm   fused, webgpu   spelled out, webgpu");
for (const { queries, keys, largest, ...errors } of rows) {
  const same = Object.entries(errors).every(([name, error]) =>
    name === "fused, webgpu" && queries >= 32 ? error > 0.005 : error < 1e-5,
  );
  if (!same) changed++;
  const numbers = Object.values(errors).map((error) => error.toExponential(1).padEnd(16));
  console.log(String(queries).padEnd(7), String(keys).padEnd(5), largest.toFixed(2).padEnd(29), ...numbers, same ? "" : "CHANGED");
}
console.log(changed ? "\nThe behaviour has changed." : "\nAs described.");
process.exit(changed ? 1 : 0);
EOF
TMPDIR=$tmp AWS_LAMBDA_JS_RUNTIME=nodejs22.x node show.mjs
