// How four consecutive channels are stored, and their way into f32 arithmetic and back.
//   ACT_F16 / WGT_F16                vec4<f16>, on devices with shader-f16
//   ACT_F16_PACKED / WGT_F16_PACKED  the same bytes read as two u32, on devices without
//   neither                          vec4<f32>

#ifdef ACT_F16
alias act4 = vec4<f16>;
fn load_act(v: act4) -> vec4<f32> { return vec4<f32>(v); }
fn store_act(v: vec4<f32>) -> act4 { return vec4<f16>(v); }
#else
#ifdef ACT_F16_PACKED
alias act4 = vec2<u32>;
fn load_act(v: act4) -> vec4<f32> { return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)); }
fn store_act(v: vec4<f32>) -> act4 { return vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw)); }
#else
alias act4 = vec4<f32>;
fn load_act(v: act4) -> vec4<f32> { return v; }
fn store_act(v: vec4<f32>) -> act4 { return v; }
#endif
#endif

#ifdef WGT_F16
alias wgt4 = vec4<f16>;
fn load_wgt(v: wgt4) -> vec4<f32> { return vec4<f32>(v); }
#else
#ifdef WGT_F16_PACKED
alias wgt4 = vec2<u32>;
fn load_wgt(v: wgt4) -> vec4<f32> { return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)); }
#else
alias wgt4 = vec4<f32>;
fn load_wgt(v: wgt4) -> vec4<f32> { return v; }
#endif
#endif
