// What both halves of group normalisation share: input, sizes, and which lanes of a quad belong to a group.

@group(0) @binding(0) var<storage, read> x: array<in4>;
#ifdef SKIP
@group(0) @binding(1) var<storage, read> x2: array<in4>;
#endif

override BATCH: u32; // images
override PIXELS: u32; // of one image
override C4: u32; // quads of x
override S4: u32 = 0u; // quads of x2
override GROUPS: u32;
override SIZE: u32; // channels in a group
override RUN: u32; // pixels in a run
override RUNS: u32;

fn load_x(pixel: u32, quad: u32) -> vec4<f32> {
#ifdef SKIP
  if (quad >= C4) { return load_in(x2[pixel * S4 + quad - C4]); }
#endif
  return load_in(x[pixel * C4 + quad]);
}

// 1 for the channels of the quad that belong to the group.
fn lanes_of(group: u32, quad: u32) -> vec4<f32> {
  let channel = vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
  return select(vec4<f32>(), vec4<f32>(1.0), channel / SIZE == vec4<u32>(group));
}
