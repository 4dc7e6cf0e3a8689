// How four consecutive channels are stored, and their way into f32 arithmetic and back.
//   in4   what a kernel reads: IN_F16 or f32        out4  what it writes, and what is added to that: OUT_F16 or f32
//   wgt4  its weight matrix: WGT_F16 or f32
// With IN_I8 or OUT_I8 the four are codes of a quantized activation in one u32: q - 128 for q in 0 .. Q_MAX.
// 16-bit floats are vec4<f16> with SHADER_F16; without, the same bytes are read as two u32.

#ifdef SHADER_F16
enable f16;
alias half4 = vec4<f16>;
fn from_half(v: half4) -> vec4<f32> { return vec4<f32>(v); }
fn to_half(v: vec4<f32>) -> half4 { return vec4<f16>(v); }
#else
alias half4 = vec2<u32>;
fn from_half(v: half4) -> vec4<f32> { return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)); }
fn to_half(v: vec4<f32>) -> half4 { return vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw)); }
#endif

#ifdef IN_I8
alias in4 = u32;
#else
#ifdef IN_F16
alias in4 = half4;
fn load_in(v: in4) -> vec4<f32> { return from_half(v); }
#else
alias in4 = vec4<f32>;
fn load_in(v: in4) -> vec4<f32> { return v; }
#endif
#endif

#ifdef OUT_I8
alias out4 = u32;
override Q_SCALE: f32;
override Q_ZERO: f32;
override Q_MAX: f32;
fn store_out(v: vec4<f32>) -> out4 {
  // round() is half to even, as in the references; a division, because a reciprocal would move more values over a tie.
  let q = vec4<u32>(clamp(round(v / Q_SCALE) + Q_ZERO, vec4<f32>(), vec4<f32>(Q_MAX)));
  return (q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u)) ^ 0x80808080u;
}
#else
#ifdef OUT_F16
alias out4 = half4;
fn load_out(v: out4) -> vec4<f32> { return from_half(v); }
fn store_out(v: vec4<f32>) -> out4 { return to_half(v); }
#else
alias out4 = vec4<f32>;
fn load_out(v: out4) -> vec4<f32> { return v; }
fn store_out(v: vec4<f32>) -> out4 { return v; }
#endif
#endif

#ifdef WGT_F16
alias wgt4 = half4;
fn load_wgt(v: wgt4) -> vec4<f32> { return from_half(v); }
#else
alias wgt4 = vec4<f32>;
fn load_wgt(v: wgt4) -> vec4<f32> { return v; }
#endif
