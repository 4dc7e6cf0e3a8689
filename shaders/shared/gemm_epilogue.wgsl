// The epilogue of every matrix product:
//
//   y[m, n] = activation( sum[m, n] + bias[n] + row_bias[b, n] + residual[m, n] )
//
// into channels Y_FIRST .. of a tensor that is Y4 quads wide. With BOS, the first token of every image has a sum that was
// computed once, in full precision (MixDQ's BOS-aware quantization).

#import storage
#import activation
#import gemm_sizes

#ifdef BIAS
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
#endif
#ifdef ROW_BIAS
@group(0) @binding(4) var<storage, read> row_bias: array<out4>;
#endif
#ifdef RESIDUAL
@group(0) @binding(5) var<storage, read> residual: array<out4>;
#endif
@group(0) @binding(6) var<storage, read_write> y: array<out4>;
#ifdef BOS
@group(0) @binding(7) var<storage, read> bos: array<vec4<f32>>; // [BOS_IMAGES][N4]
override TOKENS: u32; // of one image
override BOS_IMAGES: u32;
#endif

override Y4: u32; // quads of y
override Y_FIRST: u32 = 0u; // in quads

// Of four rows of the weight matrix; the same for every pixel.
fn bias_of(row4: u32) -> vec4<f32> {
#ifdef BIAS
  return bias[row4];
#else
  return vec4<f32>();
#endif
}

fn finish(m: u32, n4: u32, sum: vec4<f32>, bias4: vec4<f32>) {
  let at = m * Y4 + Y_FIRST + n4;
  var v = sum;
#ifdef BOS
  if (m % TOKENS == 0u) { v = bos[min(m / TOKENS, BOS_IMAGES - 1u) * N4 + n4]; }
#endif
  v += bias4;
#ifdef ROW_BIAS
  v += load_out(row_bias[m / PIXELS * N4 + n4]);
#endif
#ifdef RESIDUAL
  v += load_out(residual[at]);
#endif
  y[at] = store_out(activate(v));
}

// GEGLU (Shazeer 2020, arXiv 2002.05202): weight rows and biases come interleaved, four of the value, four of its gate.
fn finish_gated(m: u32, n4: u32, value: vec4<f32>, gate: vec4<f32>) {
#ifdef GEGLU
  y[m * Y4 + Y_FIRST + n4] = store_out(value * gelu(gate));
#endif
}
