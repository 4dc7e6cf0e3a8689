// First half of group normalisation: mean and sum of squared distances (M2) of one group over a run of pixels.
// One workgroup per (run, group, image). Two passes over its pixels, mean first, so nothing cancels; the second half
// merges the runs. A group's channels need not fill whole quads (diffusers allows 10, 30, even 2 channels a group),
// so each quad counts only the lanes that belong to the group.
// x [B, PIXELS, C] with x2 [B, PIXELS, S] after its channels; stats [B, GROUPS, RUNS] of (mean, M2).

#import storage
#import reduce
#import group_norm
#import grid

@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) id: vec3<u32>,
  @builtin(num_workgroups) ids: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let place = place_of(id, ids, RUNS, GROUPS);
  let group = place.y;
  let image = place.z;
  if (image >= BATCH) { return; }
  let pixel_first = place.x * RUN;
  let pixel_count = min(RUN, PIXELS - pixel_first);
  let quad_first = group * SIZE / 4u;
  let quad_count = ((group + 1u) * SIZE - 1u) / 4u - quad_first + 1u;
  let items = pixel_count * quad_count;
  let count = f32(pixel_count * SIZE);

  var part = 0.0;
  for (var i = local; i < items; i += THREADS) {
    let quad = quad_first + i % quad_count;
    part += dot(load_x(image * PIXELS + pixel_first + i / quad_count, quad), lanes_of(group, quad));
  }
  let mean = sum_over_workgroup(vec2<f32>(part, 0.0), local).x / count;
  part = 0.0;
  for (var i = local; i < items; i += THREADS) {
    let quad = quad_first + i % quad_count;
    let d = load_x(image * PIXELS + pixel_first + i / quad_count, quad) - mean;
    part += dot(d * d, lanes_of(group, quad));
  }
  let m2 = sum_over_workgroup(vec2<f32>(part, 0.0), local).x;
  if (local == 0u) { stats[(image * GROUPS + group) * RUNS + place.x] = vec2<f32>(mean, m2); }
}
