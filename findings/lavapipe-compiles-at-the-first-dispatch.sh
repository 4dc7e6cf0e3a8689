#!/usr/bin/env bash
# Mesa's lavapipe compiles a compute pipeline when it is first dispatched, and needs seconds for a few reads of storage memory.
#
# Guess: createComputePipelineAsync() is where a driver compiles; once it has resolved, the first dispatch costs what the second
#   does. That is what the call is for, and what a progress bar "compiling shaders" counts.
# Seen: the promise resolves after some 10 ms of CPU time, when Tint and the SPIR-V front end are through. LLVM runs in the
#   first submit, for a hundred times as long. SwiftShader, the other software driver, compiles in
#   createComputePipelineAsync(), as one would think. And what lavapipe's time is spent on are accesses to storage buffers: an
#   invocation is a lane of a vector, and each access, bounds-checked, becomes code for every lane. Eight statements that
#   compute cost LLVM a fraction of what eight that load do.
# Cost: a first picture's UNet took 83 s "after compiling". A kernel that loads scales and bias once instead of once for each
#   of four pixels compiles in 7.4 s of lavapipe's time, not 18.8.
# Way out: give each pipeline a dispatch of one workgroup on scratch buffers before saying that it is ready; in kernels, load
#   once into registers.
#
# Runs on Debian's mesa-vulkan-drivers from bookworm-backports, unpacked aside, and for comparison on the SwiftShader that
# @sparticuz/chromium carries: Debian 12 on x86-64 with its sources in /etc/apt, about 350 MB of packages, a minute.
# Other versions: MESA=version WEBGPU=x.y.z SPARTICUZ=x.y.z. Exit: 0 as described, 1 changed, 2 it could not be tried.
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

# apt with lists and a cache of its own, backports added: nothing of the system is touched.
sources=(/etc/apt/sources.list /etc/apt/sources.list.d)
mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' "${sources[@]}" 2> /dev/null | head -n 1 | tr -d ' ' || true)
[ -n "$mirror" ] || exit 2
mkdir -p apt/lists/partial apt/archives/partial debs
for suite in bookworm bookworm-backports; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done > apt/sources.list
apt=(apt-get -qq -o Dir::State="$tmp/apt" -o Dir::State::Lists="$tmp/apt/lists" -o Dir::State::status=/var/lib/dpkg/status
  -o Dir::Cache="$tmp/apt" -o Dir::Etc::sourcelist="$tmp/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o APT::Sandbox::User= -o Debug::NoLocking=1 -t bookworm-backports)
mesa="mesa-vulkan-drivers=${MESA:-25.0.7-2~bpo12+1}"
"${apt[@]}" update || exit 2
missing=$("${apt[@]}" -s --no-install-recommends install "$mesa" | awk '/^Inst/ && $2 != "mesa-vulkan-drivers" { print $2 }')
(cd debs && "${apt[@]}" download "$mesa" libvulkan1 $missing) || exit 2
for deb in debs/*.deb; do dpkg -x "$deb" mesa; done
libraries=$tmp/mesa/usr/lib/x86_64-linux-gnu:$tmp/mesa/lib/x86_64-linux-gnu
printf '{"file_format_version":"1.0.0","ICD":{"library_path":"%s","api_version":"1.3.0"}}' \
  "$tmp/mesa/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so" > lavapipe.json

cat > measure.mjs << 'EOF'
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
console.log(adapter.info.description);

/** `count` statements, each of which loads two vectors from storage, or computes with what is there. */
async function measure(what, count) {
  const load = (i) => `sum += fma(a[(at + ${3 * i}u) % n], b[(at * ${i + 2}u) % n], sum.yzwx);`;
  const compute = (i) => `sum += fma(sum.wxyz, vec4<f32>(${i}.5, 2.0, 3.0, f32(at * ${i + 2}u)), sum.yzwx);`;
  const code = `
    @group(0) @binding(0) var<storage, read_write> out: array<f32>;
    @group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
    @group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
      let n = arrayLength(&a);
      var sum = b[id.x % n] + a[id.x % n];
      for (var k = 0u; k < 8u; k++) {
        let at = id.x + k;
        ${Array.from({ length: count }, (_, i) => (what === "loads" ? load(i) : compute(i))).join("\n")}
      }
      out[id.x] = sum.x + sum.y + sum.z + sum.w;
    }`;
  const times = [];
  let from = process.cpuUsage(); // of all threads: what else runs on the machine does not matter
  const lap = () => {
    const { user, system } = process.cpuUsage(from);
    times.push((user + system) / 1000);
  };
  const module = device.createShaderModule({ code });
  const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
  lap();
  const entries = [0, 1, 2].map((binding) => ({
    binding,
    resource: { buffer: device.createBuffer({ size: 4096, usage: GPUBufferUsage.STORAGE }) },
  }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  for (let i = 0; i < 2; i++) {
    from = process.cpuUsage();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    lap();
  }
  const [made, first, second] = times.map(Math.round);
  console.log(`${count} ${what.padEnd(6)} CPU time: pipeline ${made} ms, 1st dispatch ${first} ms, 2nd ${second} ms`);
  return { made: times[0], first: times[1], second: times[2] };
}

await measure("sums", 1); // whatever a first pipeline starts up
const sums = await measure("sums", 8);
const loads = await measure("loads", 8);
const isLavapipe = adapter.info.description.includes("llvmpipe");
const claims = isLavapipe
  ? {
      "the first dispatch takes ten times as long as making the pipeline": loads.first > 10 * loads.made,
      "the second dispatch is nothing beside it": loads.second * 20 < loads.first,
      "loads cost three times what sums do": loads.first > 3 * sums.first,
    }
  : { "making the pipeline takes longer than its first dispatch": loads.made > 2 * loads.first };
for (const [claim, holds] of Object.entries(claims)) console.log(`  ${claim}: ${holds ? "yes" : "NO, CHANGED"}`);
process.exit(Object.values(claims).every(Boolean) ? 0 : 1);
EOF
# Neither driver's shader cache on disk may stand in for the compiler; no other Vulkan layer either.
export XDG_RUNTIME_DIR=$tmp MESA_SHADER_CACHE_DISABLE=true
code=0
for driver in lavapipe vk_swiftshader_icd; do
  folder=$([ $driver = lavapipe ] && echo "$libraries" || echo "$tmp")
  LD_LIBRARY_PATH="$folder" VK_ICD_FILENAMES="$tmp/$driver.json" node measure.mjs 2> errors || code=$?
  [ $code != 2 ] || cat errors >&2
done
exit "$code"
