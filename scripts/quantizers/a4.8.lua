-- quantizers/a4.8.lua -- BitNet a4.8 (arXiv 2411.04965) as a whole: 4 bits where rows are dense, and where they have
-- outliers 8 bits of the largest elements.
--
--     attn_q, attn_k, attn_v, ffn_gate, ffn_up     int4.lua
--     attn_out                                     topk.lua, with half of the row
--     ffn_down                                     int8.lua: what a squared rectifier leaves is sparse by itself
--     any other                                    int8.lua
local int4 = { attn_q = true, attn_k = true, attn_v = true, ffn_gate = true, ffn_up = true }

return setun.quantizer "a4.8" {
  doc = "4-bit integers into attention and feed-forward, 8-bit ones inside, of the upper half for attn_out",
  source = "BitNet a4.8, arXiv 2411.04965",
  apply = function(g, x, _, name)
    if int4[name] then return g:quantize_bits(x, { bits = 4, by = "absmean" }) end
    if name == "attn_out" then x = g:keep_largest(x, { keep = (x.dims[2] + 1) // 2 }) end
    return g:quantize_i8(x)
  end,
}
