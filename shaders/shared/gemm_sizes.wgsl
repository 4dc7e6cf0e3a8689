// Sizes of a matrix product or convolution, and where an output pixel reads its input.
//
// x [B, H, W, C], x2 [B, H, W, S] continues x's channels, w [N, TAPS, C + S], result [ROWS = B OH OW, N]. All channel
// counts are in quads (suffix 4). A linear layer is a convolution with one tap that never leaves the image.

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
