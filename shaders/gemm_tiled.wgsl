// Matrix product and implicit-GEMM convolution through workgroup memory (see shared/gemm_epilogue.wgsl for the formula).
// One workgroup makes BM pixels x BN channels; each of its BM/4 x BN/8 invocations 4 pixels x 8 channels in registers.
// Per step, BK4 quads of the inner dimension of both operands are staged, widened to f32. BM, BN and BK4 are text
// constants, so every index into workgroup memory is provably in range.
//
// Layout of the stage: the quad of the inner dimension is the slow index, so that neighbouring invocations read
// neighbouring 16 bytes. A column's place within its half is (column % 4, column / 4) for the same reason: an
// invocation owns four consecutive columns of each half, which must not lie four apart.

#import gemm_operands
#import gemm_epilogue
#import grid

const THREADS = BM / 4u * (BN / 8u);
const HALF = BN / 2u;

var<workgroup> stage_x: array<vec4<f32>, BK4 * BM>;
var<workgroup> stage_w: array<vec4<f32>, BK4 * BN>;

// The weight row behind a tile column. Under GEGLU the first half of the tile's columns are values, the second gates.
fn weight_row(first: u32, column: u32) -> u32 {
  let half = column / HALF;
  let within = column % HALF;
#ifdef GEGLU
  return first + within / 4u * 8u + half * 4u + within % 4u;
#else
  return first + half * HALF + within;
#endif
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let tm = local / (BN / 8u);
  let tn = local % (BN / 8u);
#ifdef GEGLU
  let weight_rows = N4 * 8u;
#else
  let weight_rows = N4 * 4u;
#endif
  let place = place_of(group, groups, (ROWS + BM - 1u) / BM, (weight_rows + BN - 1u) / BN);
  if (place.z > 0u) { return; }
  let m_first = place.x * BM;
  let n_first = place.y * BN;

  // The pixels this invocation stages stay the same throughout.
#ifdef CONV
  var windows: array<Window, BK4 * BM / THREADS>;
  for (var i = 0u; i < BK4 * BM / THREADS; i++) {
    windows[i] = window_of(min(m_first + (local + i * THREADS) / BK4, ROWS - 1u));
  }
#endif

  var sum: array<vec4<f32>, 8>; // [row of 4][half of 2]
  for (var tap = 0u; tap < TAPS; tap++) {
    for (var tile = 0u; tile < (C4 + S4 + BK4 - 1u) / BK4; tile++) {
      for (var i = 0u; i < BK4 * BM / THREADS; i++) {
        let slot = local + i * THREADS;
        let c = tile * BK4 + slot % BK4;
        var v = vec4<f32>();
#ifdef CONV
        let pixel = pixel_under(windows[i], tap);
        if (pixel >= 0 && c < C4 + S4) { v = load_x(u32(pixel), c); }
#else
        if (c < C4) { v = load_x(min(m_first + slot / BK4, ROWS - 1u), c); }
#endif
        stage_x[slot % BK4 * BM + slot / BK4] = v;
      }
      for (var i = 0u; i < BK4 * BN / THREADS; i++) {
        let slot = local + i * THREADS;
        let c = tile * BK4 + slot % BK4;
        let column = slot / BK4;
        let row = weight_row(n_first, column);
        var v = vec4<f32>();
        if (row < weight_rows && c < C4 + S4) { v = load_w(row, tap, c); }
        stage_w[slot % BK4 * BN + column / HALF * HALF + column % 4u * (BN / 8u) + column % HALF / 4u] = v;
      }
      workgroupBarrier();
      for (var k = 0u; k < BK4; k++) {
        var b: array<vec4<f32>, 8>;
        for (var j = 0u; j < 8u; j++) { b[j] = stage_w[k * BN + j / 4u * HALF + j % 4u * (BN / 8u) + tn]; }
        for (var i = 0u; i < 4u; i++) {
          let a = stage_x[k * BM + i * (BM / 4u) + tm];
          sum[i * 2u] += vec4<f32>(dot(a, b[0]), dot(a, b[1]), dot(a, b[2]), dot(a, b[3]));
          sum[i * 2u + 1u] += vec4<f32>(dot(a, b[4]), dot(a, b[5]), dot(a, b[6]), dot(a, b[7]));
        }
      }
      workgroupBarrier();
    }
  }

#ifdef GEGLU
  let n4 = n_first / 8u + tn;
  let bias4 = bias_of(2u * n4);
  let next_bias4 = bias_of(2u * n4 + 1u);
#else
  let n4 = n_first / 4u + tn;
  let next_n4 = n4 + HALF / 4u;
  let bias4 = bias_of(n4);
  let next_bias4 = bias_of(next_n4);
#endif
  for (var i = 0u; i < 4u; i++) {
    let m = m_first + i * (BM / 4u) + tm;
    if (m < ROWS && n4 < N4) {
#ifdef GEGLU
      finish_gated(m, n4, sum[i * 2u] + bias4, sum[i * 2u + 1u] + next_bias4);
#else
      finish(m, n4, sum[i * 2u], bias4);
      if (next_n4 < N4) { finish(m, next_n4, sum[i * 2u + 1u], next_bias4); }
#endif
    }
  }
}
