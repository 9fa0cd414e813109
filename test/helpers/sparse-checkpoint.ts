/** A Llama checkpoint of zeros that takes half a gigabyte to read and next to nothing on disk. */
import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';

const HIDDEN = 1024;
const FFN = 4096;
const LAYERS = 16;
const VOCAB = 1024;
const HEAD_DIM = 64;
const NUM_HEADS = 16;
const NUM_KV_HEADS = 4;

/** Returns the path of the weights. */
export function writeSparseCheckpoint(folder: string): string {
  const config = {
    architectures: ['LlamaForCausalLM'],
    hidden_act: 'silu',
    hidden_size: HIDDEN,
    intermediate_size: FFN,
    num_hidden_layers: LAYERS,
    num_attention_heads: NUM_HEADS,
    num_key_value_heads: NUM_KV_HEADS,
    head_dim: HEAD_DIM,
    vocab_size: VOCAB,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    torch_dtype: 'bfloat16',
  };
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify(config));

  let end = 0;
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = {};
  for (const [name, shape] of tensors()) {
    const begin = end;
    end += 2 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [begin, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));

  const weights = path.join(folder, 'model.safetensors');
  const fd = openSync(weights, 'w');
  writeSync(fd, Buffer.concat([length, text]));
  ftruncateSync(fd, length.length + text.length + end);
  closeSync(fd);
  return weights;
}

function* tensors(): Generator<[string, number[]]> {
  yield ['model.embed_tokens.weight', [VOCAB, HIDDEN]];
  yield ['lm_head.weight', [VOCAB, HIDDEN]];
  yield ['model.norm.weight', [HIDDEN]];
  for (let i = 0; i < LAYERS; i++) {
    const layer = `model.layers.${i}`;
    yield [`${layer}.input_layernorm.weight`, [HIDDEN]];
    yield [`${layer}.post_attention_layernorm.weight`, [HIDDEN]];
    yield [`${layer}.self_attn.q_proj.weight`, [NUM_HEADS * HEAD_DIM, HIDDEN]];
    yield [`${layer}.self_attn.k_proj.weight`, [NUM_KV_HEADS * HEAD_DIM, HIDDEN]];
    yield [`${layer}.self_attn.v_proj.weight`, [NUM_KV_HEADS * HEAD_DIM, HIDDEN]];
    yield [`${layer}.self_attn.o_proj.weight`, [HIDDEN, NUM_HEADS * HEAD_DIM]];
    yield [`${layer}.mlp.gate_proj.weight`, [FFN, HIDDEN]];
    yield [`${layer}.mlp.up_proj.weight`, [FFN, HIDDEN]];
    yield [`${layer}.mlp.down_proj.weight`, [HIDDEN, FFN]];
  }
}
