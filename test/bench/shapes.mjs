// What is measured: shapes of the Llama architecture.
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { root } from '../../scripts/common.mjs';

export const SHAPES = {
  tiny: { layers: 8, hidden: 256, ffn: 640, heads: 8, kv: 4, hd: 64, vocab: 4096 },
  '1.1b': { layers: 16, hidden: 2048, ffn: 8192, heads: 32, kv: 8, hd: 64, vocab: 32768 },
};

/** Flags of `heddle bench latency` that load this shape: the bundled model, or random weights for a config made in `folder`. */
export function modelFlags(name, folder) {
  if (name === 'tiny') return ['--model', path.join(root, 'examples/models/tiny-lexicon')];
  const { layers, hidden, ffn, heads, kv, hd, vocab } = SHAPES[name];
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    hidden_size: hidden,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kv,
    head_dim: hd,
    vocab_size: vocab,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    tie_word_embeddings: false,
    bos_token_id: 0,
    eos_token_id: 1,
    torch_dtype: 'bfloat16',
  };
  const model = path.join(folder, `llama-${name}`);
  mkdirSync(model, { recursive: true });
  writeFileSync(path.join(model, 'config.json'), JSON.stringify(config, null, 2));
  return ['--model', model, '--load-format', 'dummy'];
}
