// Integer matrix product and convolution straight from global memory (see shared/gemm_i8_dequantize.wgsl for the formula).
// One invocation makes 4 pixels x 4 channels (GEGLU: 4 values and their 4 gates): the variant for software adapters.

#import gemm_i8
#import gemm_i8_dequantize
#import gemm_epilogue
#import grid

struct Sums { r0: vec4<i32>, r1: vec4<i32>, r2: vec4<i32>, r3: vec4<i32> }
struct Floats { r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32> }

fn accumulate(
  s: ptr<function, Sums>,
  a0: vec4<u32>, a1: vec4<u32>, a2: vec4<u32>, a3: vec4<u32>,
  row_tap: u32,
  block: u32,
) {
  let b0 = unpack_block(row_tap, block);
  let b1 = unpack_block(row_tap + TAPS, block);
  let b2 = unpack_block(row_tap + 2u * TAPS, block);
  let b3 = unpack_block(row_tap + 3u * TAPS, block);
  (*s).r0 += vec4<i32>(dot_block(a0, b0), dot_block(a0, b1), dot_block(a0, b2), dot_block(a0, b3));
  (*s).r1 += vec4<i32>(dot_block(a1, b0), dot_block(a1, b1), dot_block(a1, b2), dot_block(a1, b3));
  (*s).r2 += vec4<i32>(dot_block(a2, b0), dot_block(a2, b1), dot_block(a2, b2), dot_block(a2, b3));
  (*s).r3 += vec4<i32>(dot_block(a3, b0), dot_block(a3, b1), dot_block(a3, b2), dot_block(a3, b3));
}

fn flush(t: ptr<function, Floats>, s: Sums, xsum: vec4<i32>, segment: u32, row4: u32) {
  let scales = scales_of(segment, row4);
  (*t).r0 += dequantize(s.r0, xsum.x, segment, scales);
  (*t).r1 += dequantize(s.r1, xsum.y, segment, scales);
  (*t).r2 += dequantize(s.r2, xsum.z, segment, scales);
  (*t).r3 += dequantize(s.r3, xsum.w, segment, scales);
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
#ifdef CONV
  let win0 = window_of(m);
  let win1 = window_of(m1);
  let win2 = window_of(m2);
  let win3 = window_of(m3);
#endif
#ifdef GEGLU
  let row4 = 2u * n4;
  var gate: Floats;
#else
  let row4 = n4;
#endif
  var total: Floats;
  for (var segment = 0u; segment < segments(); segment++) {
    let range = segment_range(segment);
    var sums = Sums(vec4<i32>(), vec4<i32>(), vec4<i32>(), vec4<i32>());
    var gates = Sums(vec4<i32>(), vec4<i32>(), vec4<i32>(), vec4<i32>());
    var xsum = vec4<i32>();
    for (var tap = 0u; tap < TAPS; tap++) {
#ifdef CONV
      let p = vec4<i32>(pixel_under(win0, tap), pixel_under(win1, tap), pixel_under(win2, tap), pixel_under(win3, tap));
#else
      let p = vec4<i32>(vec4<u32>(m, m1, m2, m3));
#endif
      let q = vec4<u32>(max(p, vec4<i32>()));
      for (var block = range.x; block < range.y; block++) {
        var a0 = load_block(q.x, block);
        var a1 = load_block(q.y, block);
        var a2 = load_block(q.z, block);
        var a3 = load_block(q.w, block);
#ifdef CONV
        let pad = padding_block(block);
        a0 = select(a0, pad, p.x < 0);
        a1 = select(a1, pad, p.y < 0);
        a2 = select(a2, pad, p.z < 0);
        a3 = select(a3, pad, p.w < 0);
#endif
#ifdef ZERO_POINT
        xsum += vec4<i32>(sum_block(a0), sum_block(a1), sum_block(a2), sum_block(a3));
#endif
        accumulate(&sums, a0, a1, a2, a3, row4 * 4u * TAPS + tap, block);
#ifdef GEGLU
        accumulate(&gates, a0, a1, a2, a3, (row4 + 1u) * 4u * TAPS + tap, block);
#endif
      }
    }
    flush(&total, sums, xsum, segment, row4);
#ifdef GEGLU
    flush(&gate, gates, xsum, segment, row4 + 1u);
#endif
  }

#ifdef GEGLU
  let bias4 = bias_of(2u * n4);
  let gate_bias4 = bias_of(2u * n4 + 1u);
  finish_gated(m, n4, total.r0 + bias4, gate.r0 + gate_bias4);
  if (m + 1u < ROWS) { finish_gated(m1, n4, total.r1 + bias4, gate.r1 + gate_bias4); }
  if (m + 2u < ROWS) { finish_gated(m2, n4, total.r2 + bias4, gate.r2 + gate_bias4); }
  if (m + 3u < ROWS) { finish_gated(m3, n4, total.r3 + bias4, gate.r3 + gate_bias4); }
#else
  let bias4 = bias_of(n4);
  finish(m, n4, total.r0, bias4);
  if (m + 1u < ROWS) { finish(m1, n4, total.r1, bias4); }
  if (m + 2u < ROWS) { finish(m2, n4, total.r2, bias4); }
  if (m + 3u < ROWS) { finish(m3, n4, total.r3, bias4); }
#endif
}
