// y = (x - mean) / sqrt(variance + eps) * weight + bias over the channels of one pixel; one workgroup per pixel.
// Mean first, then the squared distances from it: no cancellation. Statistics in f32.
// x, y [ROWS, C]; weight, bias [C].

#import storage
#import reduce
#import grid

@group(0) @binding(0) var<storage, read> x: array<in4>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<out4>;

override ROWS: u32;
override C4: u32;
override EPS: f32;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let row = number_of(group, groups);
  if (row >= ROWS) { return; }
  let first = row * C4;
  var part = vec4<f32>();
  for (var c = local; c < C4; c += THREADS) { part += load_in(x[first + c]); }
  let mean = sum_over_workgroup(vec2<f32>(dot(part, vec4<f32>(1.0)), 0.0), local).x / f32(C4 * 4u);
  part = vec4<f32>();
  for (var c = local; c < C4; c += THREADS) {
    let d = load_in(x[first + c]) - mean;
    part += d * d;
  }
  let variance = sum_over_workgroup(vec2<f32>(dot(part, vec4<f32>(1.0)), 0.0), local).x / f32(C4 * 4u);
  let norm = inverseSqrt(variance + EPS);
  for (var c = local; c < C4; c += THREADS) {
    y[first + c] = store_out((load_in(x[first + c]) - mean) * norm * weight[c] + bias[c]);
  }
}
