// Quantized weights count input channels in elements of 16, x2's after x's, each tensor beginning an element of its own.
// A segment is what shares scales and zero points: everything; each half of a SPLIT shortcut; a GROUPED layer's groups of
// 64 channels.

#import gemm_sizes

override X_ZERO: f32 = 0.0; // the stored code of zero in x, -128 .. 127
override X2_ZERO: f32 = 0.0;

fn elements_1() -> u32 { return (C4 + 3u) / 4u; }
fn elements_2() -> u32 { return (S4 + 3u) / 4u; }
fn elements() -> u32 { return elements_1() + elements_2(); }

const GROUP = 4u; // elements
fn groups_1() -> u32 { return (elements_1() + GROUP - 1u) / GROUP; }

fn segments() -> u32 {
#ifdef GROUPED
  return groups_1() + (elements_2() + GROUP - 1u) / GROUP;
#else
#ifdef SPLIT
  return 2u;
#else
  return 1u;
#endif
#endif
}

fn segment_of(e: u32) -> u32 {
#ifdef GROUPED
  return select(e / GROUP, groups_1() + (e - elements_1()) / GROUP, e >= elements_1());
#else
#ifdef SPLIT
  return select(0u, 1u, e >= elements_1());
#else
  return 0u;
#endif
#endif
}

// First and last + 1 element of a segment.
fn segment_range(segment: u32) -> vec2<u32> {
#ifdef GROUPED
  if (segment < groups_1()) { return vec2<u32>(segment * GROUP, min((segment + 1u) * GROUP, elements_1())); }
  let within = (segment - groups_1()) * GROUP;
  return elements_1() + vec2<u32>(within, min(within + GROUP, elements_2()));
#else
#ifdef SPLIT
  return select(vec2<u32>(0u, elements_1()), vec2<u32>(elements_1(), elements()), segment == 1u);
#else
  return vec2<u32>(0u, elements());
#endif
#endif
}
