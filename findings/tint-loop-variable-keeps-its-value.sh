#!/usr/bin/env bash
# Tint (Dawn's WGSL compiler, in Chromium and in npm's webgpu): a variable that is declared in a loop without an initialiser
# is zero in the first round only.
#
# Guess: `var sum: vec4<f32>;` in a loop's body is `var sum = vec4<f32>();`. WGSL says so: the declaration is executed every
#   time control reaches it, and a variable without an initialiser then gets the zero value of its type.
# Seen: the variable still holds what the last round left in it. Three rounds that each add 1 to a fresh variable total 6
#   (1 + 2 + 3), not 3. Scalars, vectors, matrices, arrays and structures alike; in `for` and `while`; also in a block within
#   the loop. A variable of a function that the loop calls is zero each time. The SPIR-V shows why: the variable is hoisted to
#   the function's head with a null constant as its initialiser, which runs once, and no store of zero is left in the loop.
#   Nothing warns, and the first round is right, so that a test of one tile passes.
#   Chromium 153 and 156 give the same numbers, and so does Mesa's lavapipe 25.0.7 in place of SwiftShader.
# Cost: our tiled attention declares `score: array<vec4<f32>, 4>` for each tile of 32 keys. Without an initialiser it is right
#   up to 32 keys, and then adds every tile's scores to those of the tile before.
# Way out: write the initialiser, or assign every element before the first read.
#
# Runs on SwiftShader, the software Vulkan driver that @sparticuz/chromium carries: Linux, x86-64, about 250 MB of packages.
# Other versions: WEBGPU=x.y.z SPARTICUZ=x.y.z. Exit: 0 as described, 1 the behaviour has changed, 2 it could not be tried.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
npm install --prefix "$tmp" --ignore-scripts --no-audit --no-fund --loglevel=error \
  "webgpu@${WEBGPU:-0.6.2}" "@sparticuz/chromium@${SPARTICUZ:-153.0.0}" > /dev/null || exit 2

cat > unpack.mjs << 'EOF'
import chromium from "@sparticuz/chromium";
await chromium.executablePath(); // unpacks into TMPDIR, SwiftShader and a Vulkan loader along with it
EOF
TMPDIR=$tmp node unpack.mjs || exit 2

cat > show.mjs << 'EOF'
import { readFileSync } from "node:fs";
import { create, globals } from "webgpu";

// What fails here is not the behaviour that is looked at.
process.on("uncaughtException", (error) => {
  console.error(error);
  process.exit(2);
});
Object.assign(globalThis, globals);
const gpu = create([]);
const adapter = await gpu.requestAdapter();
if (!adapter) process.exit(2);
const device = await adapter.requestDevice();
const { version } = JSON.parse(readFileSync("node_modules/webgpu/package.json", "utf8"));
console.log(`webgpu ${version}, adapter: ${adapter.info.description}\n`);

/** Adds up, over three rounds of a loop, what a variable holds after `add`. */
async function total({ declare = "", add = "", read = "0.0", loop = "for (var t = 0u; t < 3u; t++)", before = "" }) {
  const code = `
    struct Pair { first: f32, second: vec2<f32> }
    fn called() -> f32 { var x: array<f32, 4>; x[1] += 1.0; return x[1]; }
    @group(0) @binding(0) var<storage, read_write> out: f32;
    @compute @workgroup_size(1) fn main() {
      var total = 0.0;
      ${before}
      ${loop} { ${declare} ${add} total += ${read}; }
      out = total;
    }`;
  const module = device.createShaderModule({ code });
  const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
  const usage = GPUBufferUsage;
  const written = device.createBuffer({ size: 4, usage: usage.STORAGE | usage.COPY_SRC });
  const readable = device.createBuffer({ size: 4, usage: usage.MAP_READ | usage.COPY_DST });
  const entries = [{ binding: 0, resource: { buffer: written } }];
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(written, 0, readable, 0, 4);
  device.queue.submit([encoder.finish()]);
  await readable.mapAsync(GPUMapMode.READ);
  return new Float32Array(readable.getMappedRange())[0];
}

const array = { declare: "var x: array<f32, 4>;", add: "x[1] += 1.0;", read: "x[1]" };
const cases = [
  ["var x: f32;", 6, { declare: "var x: f32;", add: "x += 1.0;", read: "x" }],
  ["var x: vec4<f32>;", 6, { declare: "var x: vec4<f32>;", add: "x += vec4<f32>(1.0);", read: "x.w" }],
  ["var x: mat2x2<f32>;", 6, { declare: "var x: mat2x2<f32>;", add: "x[1][0] += 1.0;", read: "x[1][0]" }],
  ["var x: Pair;", 6, { declare: "var x: Pair;", add: "x.second.y += 1.0;", read: "x.second.y" }],
  ["var x: array<f32, 4>;", 6, array],
  ["the same in `while`", 6, { ...array, before: "var t = 0u;", loop: "while (t < 3u)", add: "x[1] += 1.0; t++;" }],
  ["the same in a block in the loop", 6, { add: "{ var x: array<f32, 4>; x[1] += 1.0; total += x[1]; }" }],
  ["the same in a function called there", 3, { read: "called()" }],
  ["var x = array<f32, 4>();", 3, { ...array, declare: "var x = array<f32, 4>();" }],
  ["var x = 0.0;", 3, { declare: "var x = 0.0;", add: "x += 1.0;", read: "x" }],
];
let changed = 0;
for (const [name, seen, parts] of cases) {
  const got = await total(parts);
  if (got !== seen) changed++;
  console.log(`${name.padEnd(38)} total ${got}, WGSL says 3${got === seen ? "" : `; it was ${seen}: CHANGED`}`);
}
console.log(changed ? "\nThe behaviour has changed." : "\nAs described.");
process.exit(changed ? 1 : 0);
EOF
LD_LIBRARY_PATH="$tmp${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" VK_ICD_FILENAMES="$tmp/vk_swiftshader_icd.json" node show.mjs
