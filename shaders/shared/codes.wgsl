// Weights as codes of 8, 4, 3 or 2 bits (src/quant/codes.ts): [row][tap][block], a block is 16 input channels.
// Unpacked, a block is four u32 of four int8 each, channel 4 q + l in byte l of word q: 8-bit codes are signed, the
// others 0 .. 2^bits - 1, which are valid int8 too. So the packed dot product takes all of them as they are, and the
// zero point is corrected once per sum.

#import segments

#ifdef W8
alias code_word = vec4<u32>;
#endif
#ifdef W4
alias code_word = vec2<u32>;
#endif
#ifdef W3
alias code_word = u32;
#endif
#ifdef W2
alias code_word = u32;
#endif

@group(0) @binding(2) var<storage, read> w: array<code_word>;

// code_words from one tap to the next.
fn tap_stride() -> u32 {
#ifdef W3
  return blocks() + (blocks() + 1u) / 2u;
#else
  return blocks();
#endif
}

// A block of a (row, tap), unpacked.
fn unpack_block(row_tap: u32, block: u32) -> vec4<u32> {
  let first = row_tap * tap_stride();
#ifdef W8
  return w[first + block];
#endif
#ifdef W4
  let v = w[first + block];
  return vec4<u32>(v.x, v.x >> 4u, v.y, v.y >> 4u) & vec4<u32>(0x0F0F0F0Fu);
#endif
#ifdef W3
  let low = w[first + block];
  let high = w[first + blocks() + block / 2u] >> (4u * (block % 2u));
  return (vec4<u32>(low, low >> 2u, low >> 4u, low >> 6u) & vec4<u32>(0x03030303u)) |
    ((vec4<u32>(high, high >> 1u, high >> 2u, high >> 3u) & vec4<u32>(0x01010101u)) << vec4<u32>(2u));
#endif
#ifdef W2
  let v = w[first + block];
  return vec4<u32>(v, v >> 2u, v >> 4u, v >> 6u) & vec4<u32>(0x03030303u);
#endif
}

// The four int8 of a word.
fn lanes(word: u32) -> vec4<i32> {
  return vec4<i32>(vec4<u32>(word << 24u, word << 16u, word << 8u, word)) >> vec4<u32>(24u);
}
