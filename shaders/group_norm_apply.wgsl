// Second half of group normalisation: merge a group's runs, normalise, scale, shift, and SiLU where asked for.
// One workgroup per (image, run of pixels, slab of SLAB4 quads). It first merges the statistics of its groups by the
// formula of Chan, Golub & LeVeque (1979), which never subtracts large sums.
// x [B, PIXELS, C] with x2 after its channels; weight, bias, y over all channels.

#import storage
#import activation
#import group_norm
#import grid

@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<out4>;

override EPS: f32;

// Mean and 1 / standard deviation per group of the slab.
var<workgroup> merged: array<vec2<f32>, MAX_GROUPS>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let quads = C4 + S4;
  let place = place_of(group, groups, (PIXELS + APPLY_RUN - 1u) / APPLY_RUN, (quads + SLAB4 - 1u) / SLAB4);
  let image = place.z;
  if (image >= BATCH) { return; }
  let quad_first = place.y * SLAB4;
  let quad_count = min(SLAB4, quads - quad_first);
  let group_first = quad_first * 4u / SIZE;
  let group_count = ((quad_first + quad_count) * 4u - 1u) / SIZE - group_first + 1u;
  for (var g = local; g < group_count; g += THREADS) {
    let at = (image * GROUPS + group_first + g) * RUNS;
    var mean = 0.0;
    var m2 = 0.0;
    var count = 0.0;
    for (var run = 0u; run < RUNS; run++) {
      let part = stats[at + run];
      let part_count = f32(min(RUN, PIXELS - run * RUN) * SIZE);
      let both = count + part_count;
      let apart = part.x - mean;
      mean += apart * part_count / both;
      m2 += part.y + apart * apart * count * part_count / both;
      count = both;
    }
    merged[g] = vec2<f32>(mean, inverseSqrt(m2 / count + EPS));
  }
  workgroupBarrier();

  let pixel_first = place.x * APPLY_RUN;
  let items = min(APPLY_RUN, PIXELS - pixel_first) * quad_count;
  for (var i = local; i < items; i += THREADS) {
    let quad = quad_first + i % quad_count;
    let pixel = image * PIXELS + pixel_first + i / quad_count;
    let g = (vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u)) / SIZE - group_first;
    let s0 = merged[g.x];
    let s1 = merged[g.y];
    let s2 = merged[g.z];
    let s3 = merged[g.w];
    let normal = (load_x(pixel, quad) - vec4<f32>(s0.x, s1.x, s2.x, s3.x)) * vec4<f32>(s0.y, s1.y, s2.y, s3.y);
    y[pixel * quads + quad] = store_out(activate(normal * weight[quad] + bias[quad]));
  }
}
