// From integer sums to floats. Over one segment, with exact int32 sums over all taps,
//
//   acc = sum x w        xsum = sum x
//   y  += scale[n] ( f32(acc + c0[n] - zi[n] xsum) - zf[n] f32(xsum - K zx) )
//
// where x holds q - 128 of unsigned activation codes q, w the codes of the weights, scale = s_x s_w, the weight's zero
// point is zi + zf (zf = 0 unless it is fractional), zx = z_x - 128, and c0 = -zx sum w + K zx zi. That is the
// formula s_x s_w sum (q - z_x)(w - z_w) with its constants folded (src/quant/parameters.ts).

#import segments

@group(0) @binding(8) var<storage, read> parameters: array<vec4<u32>>; // [segment][row]: c0, zi, scale, zf

// Of four rows of the weight matrix: what every pixel's sums over a segment need.
struct Scales { c0: vec4<i32>, zero: vec4<i32>, scale: vec4<f32>, fraction: vec4<f32> }

// Of the four rows from row 4 row4 on. Rows beyond the matrix get values that nobody may use.
fn scales_of(segment: u32, row4: u32) -> Scales {
#ifdef GEGLU
  let at = (segment * N4 * 2u + row4) * 4u;
#else
  let at = (segment * N4 + row4) * 4u;
#endif
  let p0 = parameters[at];
  let p1 = parameters[at + 1u];
  let p2 = parameters[at + 2u];
  let p3 = parameters[at + 3u];
  return Scales(
    bitcast<vec4<i32>>(vec4<u32>(p0.x, p1.x, p2.x, p3.x)),
    bitcast<vec4<i32>>(vec4<u32>(p0.y, p1.y, p2.y, p3.y)),
    bitcast<vec4<f32>>(vec4<u32>(p0.z, p1.z, p2.z, p3.z)),
    bitcast<vec4<f32>>(vec4<u32>(p0.w, p1.w, p2.w, p3.w)));
}

fn dequantize(acc: vec4<i32>, xsum: i32, segment: u32, s: Scales) -> vec4<f32> {
  var v = vec4<f32>(acc + s.c0 - s.zero * xsum);
#ifdef FRACTIONAL
  let range = segment_range(segment);
  var zero = X_ZERO;
  var quads = min(range.y * 4u, C4) - range.x * 4u;
#ifdef SKIP
  if (range.x >= blocks_1()) {
    zero = X2_ZERO;
    quads = min((range.y - blocks_1()) * 4u, S4) - (range.x - blocks_1()) * 4u;
  } else if (range.y > blocks_1()) {
    quads += S4; // one segment over both tensors, which then share their codes
  }
#endif
  v -= s.fraction * f32(xsum - i32(quads * 4u * TAPS) * i32(zero));
#endif
  return v * s.scale;
}
