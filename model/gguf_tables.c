/* model/gguf_tables.c -- what GGUF calls what Hugging Face checkpoints call otherwise: architectures,
 * keys of the configuration, tensors.
 *
 * Only tables, and the search in names.  A key that is in no row may change the function that the
 * weights compute, so whoever reads a file refuses it; that is why rows that change nothing are here,
 * too, each with its reason. */
#include <string.h>

#include "model/gguf_model.h"

#define ALL ST_GGUF_ALL
#define WINDOWS ST_GGUF_GEMMA3

/* bitnet-25 is what 2B4T's first release called itself.  The llama architecture also holds Falcon3,
 * Falcon-E, TriLM and the 1.58-bit Llama 3. */
static const st_gguf_arch archs[] = {
    { "bitnet-b1.58", "BitNetForCausalLM", "bitnet", "relu2", ST_GGUF_2B4T },
    { "bitnet-25", "BitNetForCausalLM", "bitnet", "relu2", ST_GGUF_2B4T },
    { "bitnet", "BitnetForCausalLM", "llama", "silu", ST_GGUF_1BITLLM },
    { "llama", "LlamaForCausalLM", "llama", "silu", ST_GGUF_LLAMA },
    { "qwen2", "Qwen2ForCausalLM", "qwen2", "silu", ST_GGUF_QWEN2 },
    { "qwen3", "Qwen3ForCausalLM", "qwen3", "silu", ST_GGUF_QWEN3 },
    { "gemma3", "Gemma3ForCausalLM", "gemma3_text", "gelu_pytorch_tanh", ST_GGUF_GEMMA3 },
};

static const st_gguf_key keys[] = {
    { "context_length", "max_position_embeddings", ST_GGUF_U32, ST_KEY_COUNT, ALL, ALL, 0, "longest context" },
    { "embedding_length", "hidden_size", ST_GGUF_U32, ST_KEY_COUNT, ALL, ALL, 0, "shape" },
    { "block_count", "num_hidden_layers", ST_GGUF_U32, ST_KEY_COUNT, ALL, ALL, 0, "shape" },
    { "feed_forward_length", "intermediate_size", ST_GGUF_U32, ST_KEY_COUNT, ALL, ALL, 0, "shape" },
    { "attention.head_count", "num_attention_heads", ST_GGUF_U32, ST_KEY_COUNT, ALL, ALL, 0, "shape" },
    { "attention.head_count_kv", "num_key_value_heads", ST_GGUF_U32, ST_KEY_COUNT, ALL, 0, 0, "shape; absent: as many as heads" },
    { "attention.layer_norm_rms_epsilon", "rms_norm_eps", ST_GGUF_F32, ST_KEY_POSITIVE, ALL, ALL, 0, "norm" },
    /* The format's own reader takes 10000 where it is missing; files of early converters rely on it. */
    { "rope.freq_base", "rope_theta", ST_GGUF_F32, ST_KEY_POSITIVE, ALL, ALL & ~(ST_GGUF_LLAMA | ST_GGUF_1BITLLM), 0, "rotary base" },
    { "rope.freq_base_swa", "rope_local_base_freq", ST_GGUF_F32, ST_KEY_POSITIVE, WINDOWS, 0, 0, "rotary base of layers with a window; absent: 10000" },
    { "attention.sliding_window", "sliding_window", ST_GGUF_U32, ST_KEY_COUNT, WINDOWS, WINDOWS, 0, "positions that such a layer sees" },
    { "attention.sliding_window_pattern", NULL, ST_GGUF_U32, ST_KEY_OWN, WINDOWS, 0, 0, "every how many layers one sees everything, or which; absent: 6" },
    { "attention.key_length", "head_dim", ST_GGUF_U32, ST_KEY_OWN, ALL, ST_GGUF_QWEN3 | ST_GGUF_GEMMA3, 0, "shape; absent: embedding_length / head_count" },
    { "attention.value_length", NULL, ST_GGUF_U32, ST_KEY_SIZE, ALL, 0, 0, "as attention.key_length" },
    { "rope.dimension_count", NULL, ST_GGUF_U32, ST_KEY_SIZE, ALL, 0, 0, "as attention.key_length: whole heads are turned" },
    { "vocab_size", NULL, ST_GGUF_U32, ST_KEY_SIZE, ALL, 0, 0, "rows of the embedding" },
    { "hidden_activation", NULL, ST_GGUF_STRING, ST_KEY_OWN, ALL, 0, 0, "of the gate; absent: the architecture's" },
    { "rope.scaling.type", NULL, ST_GGUF_STRING, ST_KEY_OWN, ALL, 0, 0, "changes rotary angles" },
    { "rope.scaling.factor", NULL, ST_GGUF_F32, ST_KEY_OWN, ALL, 0, 0, "changes rotary angles" },
    { "rope.scaling.attn_factor", NULL, ST_GGUF_F32, ST_KEY_ONLY, ALL, 0, 1, "multiplies scores" },
    { "rope.scaling.original_context_length", NULL, ST_GGUF_U32, ST_KEY_RECORD, ALL, 0, 0, "for scalings that are refused by rope.scaling.type" },
    { "rope.scaling.finetuned", NULL, ST_GGUF_BOOL, ST_KEY_RECORD, ALL, 0, 0, "record" },
    { "tensor_data_layout", NULL, ST_GGUF_STRING, ST_KEY_RECORD, ALL, 0, 0, "record" },
    { "attention.causal", NULL, ST_GGUF_BOOL, ST_KEY_ONLY, ALL, 0, 1, "else attention sees later positions" },
    { "pooling_type", NULL, ST_GGUF_U32, ST_KEY_OWN, ST_GGUF_QWEN3, 0, 0, "how embeddings are made, if the model makes some" },
    { "pooling_type", NULL, ST_GGUF_U32, ST_KEY_ONLY, ALL & ~ST_GGUF_QWEN3, 0, 0, "else hidden states are wanted, not logits" },
    { "expert_count", NULL, ST_GGUF_U32, ST_KEY_ONLY, ALL, 0, 0, "a mixture of experts" },
    { "expert_used_count", NULL, ST_GGUF_U32, ST_KEY_ONLY, ALL, 0, 0, "a mixture of experts" },
    { "attn_logit_softcapping", NULL, ST_GGUF_F32, ST_KEY_ONLY, ALL, 0, 0, "changes scores" },
    { "final_logit_softcapping", NULL, ST_GGUF_F32, ST_KEY_ONLY, ALL, 0, 0, "changes logits" },
};

#define HF "model.layers.%d."
#define MOST (ALL & ~ST_GGUF_GEMMA3)
#define HEAD_NORMS (ST_GGUF_QWEN3 | ST_GGUF_GEMMA3)

static const st_gguf_name names[] = {
    { "token_embd.weight", "model.embed_tokens.weight", ALL, ST_NAME_MATRIX, ST_SIZE_VOCAB, ST_SIZE_HIDDEN, 0 },
    { "output.weight", "lm_head.weight", ALL, ST_NAME_MATRIX, ST_SIZE_VOCAB, ST_SIZE_HIDDEN, 1 },
    { "output_norm.weight", "model.norm.weight", ALL, ST_NAME_NORM, ST_SIZE_HIDDEN, 0, 0 },
    { "blk.%d.attn_norm.weight", HF "input_layernorm.weight", ALL, ST_NAME_NORM, ST_SIZE_HIDDEN, 0, 0 },
    { "blk.%d.attn_q.weight", HF "self_attn.q_proj.weight", ALL, ST_NAME_LINEAR, ST_SIZE_QUERY, ST_SIZE_HIDDEN, 0 },
    { "blk.%d.attn_k.weight", HF "self_attn.k_proj.weight", ALL, ST_NAME_LINEAR, ST_SIZE_KV, ST_SIZE_HIDDEN, 0 },
    { "blk.%d.attn_v.weight", HF "self_attn.v_proj.weight", ALL, ST_NAME_LINEAR, ST_SIZE_KV, ST_SIZE_HIDDEN, 0 },
    { "blk.%d.attn_output.weight", HF "self_attn.o_proj.weight", ALL, ST_NAME_LINEAR, ST_SIZE_HIDDEN, ST_SIZE_QUERY, 0 },
    { "blk.%d.ffn_gate.weight", HF "mlp.gate_proj.weight", ALL, ST_NAME_LINEAR, ST_SIZE_FFN, ST_SIZE_HIDDEN, 0 },
    { "blk.%d.ffn_up.weight", HF "mlp.up_proj.weight", ALL, ST_NAME_LINEAR, ST_SIZE_FFN, ST_SIZE_HIDDEN, 0 },
    { "blk.%d.ffn_down.weight", HF "mlp.down_proj.weight", ALL, ST_NAME_LINEAR, ST_SIZE_HIDDEN, ST_SIZE_FFN, 0 },
    { "blk.%d.ffn_norm.weight", HF "post_attention_layernorm.weight", MOST, ST_NAME_NORM, ST_SIZE_HIDDEN, 0, 0 },
    { "blk.%d.attn_sub_norm.weight", HF "self_attn.attn_sub_norm.weight", ST_GGUF_2B4T, ST_NAME_NORM, ST_SIZE_QUERY, 0, 0 },
    { "blk.%d.ffn_sub_norm.weight", HF "mlp.ffn_sub_norm.weight", ST_GGUF_2B4T, ST_NAME_NORM, ST_SIZE_FFN, 0, 0 },
    { "blk.%d.attn_sub_norm.weight", HF "self_attn.inner_attn_ln.weight", ST_GGUF_1BITLLM, ST_NAME_NORM, ST_SIZE_QUERY, 0, 0 },
    { "blk.%d.ffn_sub_norm.weight", HF "mlp.ffn_layernorm.weight", ST_GGUF_1BITLLM, ST_NAME_NORM, ST_SIZE_FFN, 0, 0 },
    { "blk.%d.attn_q.bias", HF "self_attn.q_proj.bias", ST_GGUF_QWEN2, ST_NAME_VECTOR, ST_SIZE_QUERY, 0, 0 },
    { "blk.%d.attn_k.bias", HF "self_attn.k_proj.bias", ST_GGUF_QWEN2, ST_NAME_VECTOR, ST_SIZE_KV, 0, 0 },
    { "blk.%d.attn_v.bias", HF "self_attn.v_proj.bias", ST_GGUF_QWEN2, ST_NAME_VECTOR, ST_SIZE_KV, 0, 0 },
    { "blk.%d.attn_q_norm.weight", HF "self_attn.q_norm.weight", HEAD_NORMS, ST_NAME_NORM, ST_SIZE_HEAD, 0, 0 },
    { "blk.%d.attn_k_norm.weight", HF "self_attn.k_norm.weight", HEAD_NORMS, ST_NAME_NORM, ST_SIZE_HEAD, 0, 0 },
    { "blk.%d.post_attention_norm.weight", HF "post_attention_layernorm.weight", ST_GGUF_GEMMA3, ST_NAME_NORM, ST_SIZE_HIDDEN, 0, 0 },
    { "blk.%d.ffn_norm.weight", HF "pre_feedforward_layernorm.weight", ST_GGUF_GEMMA3, ST_NAME_NORM, ST_SIZE_HIDDEN, 0, 0 },
    { "blk.%d.post_ffw_norm.weight", HF "post_feedforward_layernorm.weight", ST_GGUF_GEMMA3, ST_NAME_NORM, ST_SIZE_HIDDEN, 0, 0 },
    /* Not for gemma3: converters disagree whether its other gains have the 1 added, and leave its windows out. */
    { "blk.%d.attn_q_norm_in.weight", HF "self_attn.q_proj.norm.weight", ST_GGUF_QWEN3, ST_NAME_VECTOR, ST_SIZE_HIDDEN, 0, ST_NAME_TOGETHER },
    { "blk.%d.attn_k_norm_in.weight", HF "self_attn.k_proj.norm.weight", ST_GGUF_QWEN3, ST_NAME_VECTOR, ST_SIZE_HIDDEN, 0, ST_NAME_TOGETHER },
    { "blk.%d.attn_v_norm_in.weight", HF "self_attn.v_proj.norm.weight", ST_GGUF_QWEN3, ST_NAME_VECTOR, ST_SIZE_HIDDEN, 0, ST_NAME_TOGETHER },
    { "blk.%d.attn_output_norm_in.weight", HF "self_attn.o_proj.norm.weight", ST_GGUF_QWEN3, ST_NAME_VECTOR, ST_SIZE_QUERY, 0, ST_NAME_TOGETHER },
    { "blk.%d.ffn_gate_norm_in.weight", HF "mlp.gate_proj.norm.weight", ST_GGUF_QWEN3, ST_NAME_VECTOR, ST_SIZE_HIDDEN, 0, ST_NAME_TOGETHER },
    { "blk.%d.ffn_up_norm_in.weight", HF "mlp.up_proj.norm.weight", ST_GGUF_QWEN3, ST_NAME_VECTOR, ST_SIZE_HIDDEN, 0, ST_NAME_TOGETHER },
    { "blk.%d.ffn_down_norm_in.weight", HF "mlp.down_proj.norm.weight", ST_GGUF_QWEN3, ST_NAME_VECTOR, ST_SIZE_FFN, 0, ST_NAME_TOGETHER },
};

const st_gguf_arch *st_gguf_archs(int64_t *n)
{
    *n = (int64_t)(sizeof archs / sizeof *archs);
    return archs;
}

const st_gguf_key *st_gguf_keys(int64_t *n)
{
    *n = (int64_t)(sizeof keys / sizeof *keys);
    return keys;
}

const st_gguf_name *st_gguf_names(int64_t *n)
{
    *n = (int64_t)(sizeof names / sizeof *names);
    return names;
}

const char *st_gguf_pooling(int64_t type)
{
    static const char *const kinds[] = { NULL, "mean", "cls", "last" };
    return type > 0 && type < 4 ? kinds[type] : NULL;
}

/* Numbers as writers write them: no sign, no zeros in front, so that a layer has one name. */
int st_gguf_name_matches(const char *pattern, const char *text, int64_t *layer)
{
    const char *hole = strstr(pattern, "%d");
    size_t before = hole ? (size_t)(hole - pattern) : 0;
    *layer = -1;
    if (!hole)
        return strcmp(pattern, text) == 0;
    if (strncmp(pattern, text, before) != 0)
        return 0;
    const char *at = text + before;
    size_t digits = strspn(at, "0123456789");
    if (digits == 0 || digits > 9 || (*at == '0' && digits > 1) || strcmp(at + digits, hole + 2) != 0)
        return 0;
    for (*layer = 0; digits > 0; digits--)
        *layer = 10 * *layer + (*at++ - '0');
    return 1;
}

char *st_gguf_name_of(st_arena *arena, const char *pattern, int64_t layer)
{
    const char *hole = strstr(pattern, "%d");
    if (!hole)
        return st_arena_strdup(arena, pattern);
    return st_arena_printf(arena, "%.*s%lld%s", (int)(hole - pattern), pattern, (long long)layer, hole + 2);
}
