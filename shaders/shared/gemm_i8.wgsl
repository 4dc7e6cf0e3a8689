// The operands of an integer matrix product. x holds q - 128 of unsigned activation codes q. The zero padding of a
// convolution is the code of zero, so sums over the weights need no correction at the border.

#import storage
#import gemm_sizes
#import codes

// WHOLE_BLOCKS: the channels of x and of x2 are multiples of 16, so a block is one load.
#ifdef WHOLE_BLOCKS
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
#ifdef SKIP
@group(0) @binding(1) var<storage, read> x2: array<vec4<u32>>;
#endif
#else
@group(0) @binding(0) var<storage, read> x: array<in4>;
#ifdef SKIP
@group(0) @binding(1) var<storage, read> x2: array<in4>;
#endif
#endif

// A block of an input pixel; quads beyond the channels are 0 and so count for nothing.
fn load_block(pixel: u32, block: u32) -> vec4<u32> {
#ifdef WHOLE_BLOCKS
#ifdef SKIP
  if (block >= blocks_1()) { return x2[pixel * blocks_2() + block - blocks_1()]; }
#endif
  return x[pixel * blocks_1() + block];
#else
#ifdef SKIP
  if (block >= blocks_1()) { return four_quads_2(pixel * S4, (block - blocks_1()) * 4u); }
#endif
  return four_quads(pixel * C4, block * 4u);
#endif
}

#ifndef WHOLE_BLOCKS
fn four_quads(first: u32, c: u32) -> vec4<u32> {
  let at = first + c;
  if (c + 4u <= C4) { return vec4<u32>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]); }
  var v = vec4<u32>(x[at], 0u, 0u, 0u);
  if (c + 1u < C4) { v.y = x[at + 1u]; }
  if (c + 2u < C4) { v.z = x[at + 2u]; }
  return v;
}
#ifdef SKIP
fn four_quads_2(first: u32, c: u32) -> vec4<u32> {
  let at = first + c;
  if (c + 4u <= S4) { return vec4<u32>(x2[at], x2[at + 1u], x2[at + 2u], x2[at + 3u]); }
  var v = vec4<u32>(x2[at], 0u, 0u, 0u);
  if (c + 1u < S4) { v.y = x2[at + 1u]; }
  if (c + 2u < S4) { v.z = x2[at + 2u]; }
  return v;
}
#endif
#endif

// What the zero padding holds in a block: zx where there are channels.
fn padding_block(block: u32) -> vec4<u32> {
  var c = block * 4u;
  var end = C4;
  var zero = X_ZERO;
#ifdef SKIP
  if (block >= blocks_1()) {
    c -= blocks_1() * 4u;
    end = S4;
    zero = X2_ZERO;
  }
#endif
  let code = (u32(i32(zero)) & 0xFFu) * 0x01010101u;
  return select(vec4<u32>(), vec4<u32>(code), vec4<u32>(c) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(end));
}

fn dot_word(a: u32, b: u32) -> i32 {
#ifdef PACKED_DOT
  return dot4I8Packed(a, b);
#else
  return dot(lanes(a), lanes(b));
#endif
}

fn dot_block(a: vec4<u32>, b: vec4<u32>) -> i32 {
  return dot_word(a.x, b.x) + dot_word(a.y, b.y) + dot_word(a.z, b.z) + dot_word(a.w, b.w);
}

fn sum_block(a: vec4<u32>) -> i32 { return dot_block(a, vec4<u32>(0x01010101u)); }

