// Matrix product and implicit-GEMM convolution, straight from global memory (see shared/gemm_epilogue.wgsl for the formula).
// One invocation makes 4 pixels x 4 channels (GEGLU: 4 values and their 4 gates). No workgroup memory, no barriers:
// the fast variant on software adapters, and the simple one to read first.

#import gemm_operands
#import gemm_epilogue
#import grid

struct Tile { r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32> }

fn accumulate(t: ptr<function, Tile>, a: array<vec4<f32>, 4>, row: u32, tap: u32, c: u32) {
  let w0 = load_w(row, tap, c);
  let w1 = load_w(row + 1u, tap, c);
  let w2 = load_w(row + 2u, tap, c);
  let w3 = load_w(row + 3u, tap, c);
  (*t).r0 += vec4<f32>(dot(a[0], w0), dot(a[0], w1), dot(a[0], w2), dot(a[0], w3));
  (*t).r1 += vec4<f32>(dot(a[1], w0), dot(a[1], w1), dot(a[1], w2), dot(a[1], w3));
  (*t).r2 += vec4<f32>(dot(a[2], w0), dot(a[2], w1), dot(a[2], w2), dot(a[2], w3));
  (*t).r3 += vec4<f32>(dot(a[3], w0), dot(a[3], w1), dot(a[3], w2), dot(a[3], w3));
}

@compute @workgroup_size(8, 8)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let place = place_of(group, groups, (N4 + 7u) / 8u, (ROWS + 31u) / 32u);
  let n4 = place.x * 8u + local.x;
  let m = (place.y * 8u + local.y) * 4u;
  if (place.z > 0u || n4 >= N4 || m >= ROWS) { return; }
  let last = ROWS - 1u;
  let m1 = min(m + 1u, last);
  let m2 = min(m + 2u, last);
  let m3 = min(m + 3u, last);
  var sum: Tile;
#ifdef GEGLU
  var gate: Tile;
  let first_row = n4 * 8u;
#else
  let first_row = n4 * 4u;
#endif

#ifdef CONV
  let win0 = window_of(m);
  let win1 = window_of(m1);
  let win2 = window_of(m2);
  let win3 = window_of(m3);
  for (var tap = 0u; tap < TAPS; tap++) {
    let p = vec4<i32>(pixel_under(win0, tap), pixel_under(win1, tap), pixel_under(win2, tap), pixel_under(win3, tap));
    let inside = select(vec4<f32>(), vec4<f32>(1.0), p >= vec4<i32>());
    let q = vec4<u32>(max(p, vec4<i32>()));
    for (var c = 0u; c < C4 + S4; c++) {
      let a = array<vec4<f32>, 4>(
        load_x(q.x, c) * inside.x, load_x(q.y, c) * inside.y, load_x(q.z, c) * inside.z, load_x(q.w, c) * inside.w);
      accumulate(&sum, a, first_row, tap, c);
    }
  }
#else
  for (var c = 0u; c < C4; c++) {
    let a = array<vec4<f32>, 4>(load_x(m, c), load_x(m1, c), load_x(m2, c), load_x(m3, c));
    accumulate(&sum, a, first_row, 0u, c);
#ifdef GEGLU
    accumulate(&gate, a, first_row + 4u, 0u, c);
#endif
  }
#endif

#ifdef GEGLU
  let bias4 = bias_of(2u * n4);
  let gate_bias4 = bias_of(2u * n4 + 1u);
  finish_gated(m, n4, sum.r0 + bias4, gate.r0 + gate_bias4);
  if (m + 1u < ROWS) { finish_gated(m1, n4, sum.r1 + bias4, gate.r1 + gate_bias4); }
  if (m + 2u < ROWS) { finish_gated(m2, n4, sum.r2 + bias4, gate.r2 + gate_bias4); }
  if (m + 3u < ROWS) { finish_gated(m3, n4, sum.r3 + bias4, gate.r3 + gate_bias4); }
#else
  let bias4 = bias_of(n4);
  finish(m, n4, sum.r0, bias4);
  if (m + 1u < ROWS) { finish(m1, n4, sum.r1, bias4); }
  if (m + 2u < ROWS) { finish(m2, n4, sum.r2, bias4); }
  if (m + 3u < ROWS) { finish(m3, n4, sum.r3, bias4); }
#endif
}
