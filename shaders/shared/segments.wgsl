// Quantized weights count input channels in blocks of 16, x2's after x's, each tensor beginning a block of its own.
// A segment is what shares scales and zero points: everything; each half of a SPLIT shortcut; a GROUPED layer's groups of
// 64 channels.

#import gemm_sizes

override X_ZERO: f32 = 0.0; // the stored code of zero in x, -128 .. 127
override X2_ZERO: f32 = 0.0;

fn blocks_1() -> u32 { return (C4 + 3u) / 4u; }
fn blocks_2() -> u32 { return (S4 + 3u) / 4u; }
fn blocks() -> u32 { return blocks_1() + blocks_2(); }

const GROUP = 4u; // blocks
fn groups_1() -> u32 { return (blocks_1() + GROUP - 1u) / GROUP; }

fn segments() -> u32 {
#ifdef GROUPED
  return groups_1() + (blocks_2() + GROUP - 1u) / GROUP;
#else
#ifdef SPLIT
  return 2u;
#else
  return 1u;
#endif
#endif
}

fn segment_of(block: u32) -> u32 {
#ifdef GROUPED
  return select(block / GROUP, groups_1() + (block - blocks_1()) / GROUP, block >= blocks_1());
#else
#ifdef SPLIT
  return select(0u, 1u, block >= blocks_1());
#else
  return 0u;
#endif
#endif
}

// First and last + 1 block of a segment.
fn segment_range(segment: u32) -> vec2<u32> {
#ifdef GROUPED
  if (segment < groups_1()) { return vec2<u32>(segment * GROUP, min((segment + 1u) * GROUP, blocks_1())); }
  let within = (segment - groups_1()) * GROUP;
  return blocks_1() + vec2<u32>(within, min(within + GROUP, blocks_2()));
#else
#ifdef SPLIT
  return select(vec2<u32>(0u, blocks_1()), vec2<u32>(blocks_1(), blocks()), segment == 1u);
#else
  return vec2<u32>(0u, blocks());
#endif
#endif
}
