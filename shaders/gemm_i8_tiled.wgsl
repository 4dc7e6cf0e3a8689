// Integer matrix product and convolution through workgroup memory (see shared/gemm_i8_dequantize.wgsl for the formula).
// The tiling of gemm_tiled: BM pixels x BN channels a workgroup, 4 x 8 an invocation; a step stages BK16 blocks (of 16
// channels) of both operands as int8, so weights are unpacked once per workgroup: 48 words are read from workgroup
// memory for 128 packed dot products.
//
// With SLICES, every slice of the inner dimension has workgroups of its own, which leave their int32 sums to
// gemm_i8_reduce: enough workgroups for a small product, and the same integers whatever the order.

#import gemm_i8
#import grid
#ifndef SLICES
#import gemm_i8_dequantize
#import gemm_epilogue
#endif

const THREADS = BM / 4u * (BN / 8u);
const HALF = BN / 2u;

var<workgroup> stage_x: array<vec4<u32>, BK16 * BM>;
var<workgroup> stage_w: array<vec4<u32>, BK16 * BN>;
var<workgroup> row_sums: array<atomic<i32>, BM>;

#ifdef SLICES
@group(0) @binding(9) var<storage, read_write> sums: array<vec4<i32>>; // [slice][ROWS][rows of w, by fours]
@group(0) @binding(10) var<storage, read_write> x_sums: array<i32>; // [slice][ROWS]
#endif

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
#ifdef SLICES
  if (place.z >= SLICES) { return; }
#else
  if (place.z > 0u) { return; }
#endif
  let m_first = place.x * BM;
  let n_first = place.y * BN;

#ifdef CONV
  var windows: array<Window, BK16 * BM / THREADS>;
  for (var i = 0u; i < BK16 * BM / THREADS; i++) {
    windows[i] = window_of(min(m_first + (local + i * THREADS) / BK16, ROWS - 1u));
  }
#endif

  var total: array<vec4<f32>, 8>; // [row of 4][half of 2]
  var sum: array<vec4<i32>, 8>;
  for (var segment = 0u; segment < segments(); segment++) {
    let range = segment_range(segment);
    let tiles = (range.y - range.x + BK16 - 1u) / BK16;
    let steps = tiles * TAPS;
    for (var i = 0u; i < 8u; i++) { sum[i] = vec4<i32>(); }
    if (local < BM) { atomicStore(&row_sums[local], 0i); }
    workgroupBarrier();
#ifdef SLICES
    let per_slice = (steps + SLICES - 1u) / SLICES;
    let step_first = place.z * per_slice;
    let step_end = min(step_first + per_slice, steps);
#else
    let step_first = 0u;
    let step_end = steps;
#endif
    for (var step = step_first; step < step_end; step++) {
      let tap = step / tiles;
      let block_first = range.x + step % tiles * BK16;
      for (var i = 0u; i < BK16 * BM / THREADS; i++) {
        let slot = local + i * THREADS;
        let block = block_first + slot % BK16;
        var v = vec4<u32>();
        if (block < range.y) {
#ifdef CONV
          let pixel = pixel_under(windows[i], tap);
          if (pixel >= 0) { v = load_block(u32(pixel), block); } else { v = padding_block(block); }
#else
          v = load_block(min(m_first + slot / BK16, ROWS - 1u), block);
#endif
        }
        stage_x[slot % BK16 * BM + slot / BK16] = v;
#ifdef ZERO_POINT
        atomicAdd(&row_sums[slot / BK16], sum_block(v));
#endif
      }
      for (var i = 0u; i < BK16 * BN / THREADS; i++) {
        let slot = local + i * THREADS;
        let block = block_first + slot % BK16;
        let column = slot / BK16;
        let row = weight_row(n_first, column);
        var v = vec4<u32>();
        if (row < weight_rows && block < range.y) { v = unpack_block(row * TAPS + tap, block); }
        stage_w[slot % BK16 * BN + column / HALF * HALF + column % 4u * (BN / 8u) + column % HALF / 4u] = v;
      }
      workgroupBarrier();
      for (var k = 0u; k < BK16; k++) {
        var b: array<vec4<u32>, 8>;
        for (var j = 0u; j < 8u; j++) { b[j] = stage_w[k * BN + j / 4u * HALF + j % 4u * (BN / 8u) + tn]; }
        for (var i = 0u; i < 4u; i++) {
          let a = stage_x[k * BM + i * (BM / 4u) + tm];
          sum[i * 2u] +=
            vec4<i32>(dot_block(a, b[0]), dot_block(a, b[1]), dot_block(a, b[2]), dot_block(a, b[3]));
          sum[i * 2u + 1u] +=
            vec4<i32>(dot_block(a, b[4]), dot_block(a, b[5]), dot_block(a, b[6]), dot_block(a, b[7]));
        }
      }
      workgroupBarrier();
    }
#ifdef SLICES
    for (var i = 0u; i < 4u; i++) {
      let m = m_first + i * (BM / 4u) + tm;
      if (m < ROWS) {
        let first = (place.z * ROWS + m) * (weight_rows / 4u);
#ifdef GEGLU
        let row4 = n_first / 4u + tn * 2u;
        if (row4 < weight_rows / 4u) {
          sums[first + row4] = sum[i * 2u];
          sums[first + row4 + 1u] = sum[i * 2u + 1u];
        }
#else
        let row4 = n_first / 4u + tn;
        if (row4 < weight_rows / 4u) { sums[first + row4] = sum[i * 2u]; }
        if (row4 + HALF / 4u < weight_rows / 4u) { sums[first + row4 + HALF / 4u] = sum[i * 2u + 1u]; }
#endif
      }
    }
    if (place.y == 0u && local < BM && m_first + local < ROWS) {
      x_sums[place.z * ROWS + m_first + local] = atomicLoad(&row_sums[local]);
    }
#else
#ifdef GEGLU
    let row4 = n_first / 4u + tn * 2u;
    let next4 = row4 + 1u;
#else
    let row4 = n_first / 4u + tn;
    let next4 = row4 + HALF / 4u;
#endif
    let scales = scales_of(segment, row4);
    let next_scales = scales_of(segment, next4);
    for (var i = 0u; i < 4u; i++) {
      let xsum = atomicLoad(&row_sums[i * (BM / 4u) + tm]);
      total[i * 2u] += dequantize(sum[i * 2u], xsum, segment, scales);
      total[i * 2u + 1u] += dequantize(sum[i * 2u + 1u], xsum, segment, next_scales);
    }
#endif
    workgroupBarrier();
  }

#ifndef SLICES
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
      finish_gated(m, n4, total[i * 2u] + bias4, total[i * 2u + 1u] + next_bias4);
#else
      finish(m, n4, total[i * 2u], bias4);
      if (next_n4 < N4) { finish(m, next_n4, total[i * 2u + 1u], next_bias4); }
#endif
    }
  }
#endif
}
