// The operands of a floating-point matrix product: activations, and weights as floats or as codes that are decoded as
// they are read.

#import storage
#import gemm_sizes

@group(0) @binding(0) var<storage, read> x: array<in4>;
#ifdef SKIP
@group(0) @binding(1) var<storage, read> x2: array<in4>;
#endif

// Four input channels of a pixel; c counts quads over x and then x2.
fn load_x(pixel: u32, c: u32) -> vec4<f32> {
#ifdef SKIP
  if (c >= C4) { return load_in(x2[pixel * S4 + c - C4]); }
#endif
  return load_in(x[pixel * C4 + c]);
}

#ifdef CODES
#import codes
@group(0) @binding(8) var<storage, read> parameters: array<vec2<f32>>; // [segment][row]: scale, zero point

// Four input channels of a weight row under a tap; c counts quads over x and then x2.
fn load_w(row: u32, tap: u32, c: u32) -> vec4<f32> {
  var quad = c;
  var block = 0u;
  if (c >= C4) {
    quad = c - C4;
    block = blocks_1();
  }
  block += quad / 4u;
#ifdef GEGLU
  let rows = N4 * 8u;
#else
  let rows = N4 * 4u;
#endif
  let p = parameters[segment_of(block) * rows + row];
  return p.x * (vec4<f32>(lanes(unpack_block(row * TAPS + tap, block)[quad % 4u])) - p.y);
}
#else
@group(0) @binding(2) var<storage, read> w: array<wgt4>;

fn load_w(row: u32, tap: u32, c: u32) -> vec4<f32> { return load_wgt(w[(row * TAPS + tap) * (C4 + S4) + c]); }
#endif
