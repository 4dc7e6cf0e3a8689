// What both matrix-product kernels share: bindings, the address of a convolution's input, the epilogue.
//
//   y[m, n] = activation( sum_tap sum_c x[pixel(m, tap), c] w[n, tap, c] + bias[n] + row_bias[b, n] + residual[m, n] )
//
// x [B, H, W, C], x2 [B, H, W, S] continues x's channels, w [N, TAPS, C + S], y and residual [ROWS = B OH OW, N].
// All channel counts are in quads (suffix 4). A linear layer is a convolution with one tap that never leaves the image.

#import storage
#import activation

@group(0) @binding(0) var<storage, read> x: array<in4>;
#ifdef SKIP
@group(0) @binding(1) var<storage, read> x2: array<in4>;
#endif
@group(0) @binding(2) var<storage, read> w: array<wgt4>;
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

override ROWS: u32; // output pixels, B OH OW
override N4: u32; // output quads
override C4: u32; // quads of x
override S4: u32 = 0u; // quads of x2
override PIXELS: u32 = 1u; // OH OW
override OW: u32 = 1u;
override H: u32 = 1u;
override W: u32 = 1u;

#ifdef CONV3
const TAPS = 9u;
#else
const TAPS = 1u;
#endif

#ifdef STRIDE2
const STRIDE = 2i;
#else
const STRIDE = 1i;
#endif

// Where an output pixel's window starts: image, and top left input row and column (of the enlarged image if any).
struct Window { image: u32, top: i32, left: i32 }

fn window_of(m: u32) -> Window {
  let inside = m % PIXELS;
#ifdef PAD_END
  let edge = 0i;
#else
  let edge = select(0i, 1i, TAPS == 9u);
#endif
  return Window(m / PIXELS, i32(inside / OW) * STRIDE - edge, i32(inside % OW) * STRIDE - edge);
}

// The input pixel under a tap, or -1 where the tap reads the zero padding.
fn pixel_under(win: Window, tap: u32) -> i32 {
  var row = win.top + i32(tap / 3u);
  var column = win.left + i32(tap % 3u);
#ifdef UPSAMPLE
  // The enlarged image ends where its output ends: nearest neighbour of a pixel outside it must stay padding.
  let inside = row >= 0 && column >= 0 && row < i32(PIXELS / OW) && column < i32(OW);
  row = max(row, 0i) * i32(H) / i32(PIXELS / OW);
  column = max(column, 0i) * i32(W) / i32(OW);
#else
  let inside = row >= 0 && column >= 0 && row < i32(H) && column < i32(W);
#endif
  return select(-1i, (i32(win.image) * i32(H) + row) * i32(W) + column, inside);
}

// Four input channels of a pixel; c counts quads over x and then x2.
fn load_x(pixel: u32, c: u32) -> vec4<f32> {
#ifdef SKIP
  if (c >= C4) { return load_in(x2[pixel * S4 + c - C4]); }
#endif
  return load_in(x[pixel * C4 + c]);
}

fn finish(m: u32, n4: u32, sum: vec4<f32>) {
  var v = sum;
#ifdef BIAS
  v += bias[n4];
#endif
#ifdef ROW_BIAS
  v += load_out(row_bias[m / PIXELS * N4 + n4]);
#endif
#ifdef RESIDUAL
  v += load_out(residual[m * N4 + n4]);
#endif
  y[m * N4 + n4] = store_out(activate(v));
}

// GEGLU (Shazeer 2020, arXiv 2002.05202): weight rows and biases come interleaved, four of the value, four of its gate.
fn finish_gated(m: u32, n4: u32, value: vec4<f32>, gate: vec4<f32>) {
#ifdef GEGLU
  var v = value;
  var g = gate;
#ifdef BIAS
  v += bias[2u * n4];
  g += bias[2u * n4 + 1u];
#endif
  y[m * N4 + n4] = store_out(v * gelu(g));
#endif
}
