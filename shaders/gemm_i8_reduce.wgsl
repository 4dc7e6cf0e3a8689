// Second half of a sliced integer product: adds up the slices' int32 sums (exact, so their order does not matter) and
// does what gemm_i8_tiled does at the end. One invocation makes 4 channels of one pixel.

#import gemm_i8_dequantize
#import gemm_epilogue
#import grid

@group(0) @binding(9) var<storage, read> sums: array<vec4<i32>>; // [slice][ROWS][rows of w, by fours]
@group(0) @binding(10) var<storage, read> x_sums: array<i32>; // [slice][ROWS]

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let i = number_of(group, groups) * 64u + local;
  let m = i / N4;
  let n4 = i % N4;
  if (m >= ROWS) { return; }
  var xsum = 0i;
  var sum = vec4<i32>();
#ifdef GEGLU
  var gate = vec4<i32>();
#endif
  for (var slice = 0u; slice < SLICES; slice++) {
    let row = slice * ROWS + m;
    xsum += x_sums[row];
#ifdef GEGLU
    sum += sums[(row * N4 + n4) * 2u];
    gate += sums[(row * N4 + n4) * 2u + 1u];
#else
    sum += sums[row * N4 + n4];
#endif
  }
#ifdef GEGLU
  let value = dequantize(sum, xsum, 0u, scales_of(0u, 2u * n4)) + bias_of(2u * n4);
  finish_gated(m, n4, value, dequantize(gate, xsum, 0u, scales_of(0u, 2u * n4 + 1u)) + bias_of(2u * n4 + 1u));
#else
  finish(m, n4, dequantize(sum, xsum, 0u, scales_of(0u, n4)), bias_of(n4));
#endif
}
