// What is measured: shapes of the Llama architecture.
import { closeSync, existsSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';

import { root } from '../../scripts/common.mjs';

/** The file of a checkpoint's weights. */
export const WEIGHTS = 'model.safetensors';

export const SHAPES = {
  tiny: { layers: 8, hidden: 256, ffn: 640, heads: 8, kv: 4, hd: 64, vocab: 4096 },
  '1.1b': { layers: 16, hidden: 2048, ffn: 8192, heads: 32, kv: 8, hd: 64, vocab: 32768 },
  '8b': { layers: 32, hidden: 4096, ffn: 14336, heads: 32, kv: 8, hd: 128, vocab: 128256 },
};

/** Flags of `heddle bench` that load this shape: the bundled model, or random weights for a config made in `folder`. */
export function modelFlags(name, folder) {
  if (name === 'tiny') return ['--model', path.join(root, 'examples/models/tiny-lexicon')];
  return ['--model', configFolder(name, folder), '--load-format', 'dummy'];
}

/** Flags that load this shape from a checkpoint, made in `folder` when it is not there, with its packed weights cached. */
export function checkpointFlags(name, folder) {
  const model = checkpointFolder(name, folder);
  return ['--model', model, '--packed-weight-cache', path.join(folder, 'packed')];
}

/** A model folder of this shape without weights, made in `folder`. */
export function configFolder(name, folder) {
  const model = path.join(folder, `llama-${name}`);
  writeConfig(name, model);
  return model;
}

/** A model folder of this shape with weights, made in `folder` when it is not there. */
export function checkpointFolder(name, folder) {
  const model = path.join(folder, `llama-${name}-checkpoint`);
  if (!existsSync(path.join(model, WEIGHTS))) {
    writeConfig(name, model);
    writeWeights(name, path.join(model, WEIGHTS));
  }
  return model;
}

/** Bytes of weights in bfloat16 that one decoding step reads: all but the embedding. */
export function weightBytesAStep(name) {
  const { layers, hidden, ffn, heads, kv, hd, vocab } = SHAPES[name];
  const layer = hidden * (heads + 2 * kv) * hd + heads * hd * hidden + 3 * hidden * ffn;
  return 2 * (layers * layer + vocab * hidden);
}

/** Bytes of keys and values of one token in bfloat16. */
export function cacheBytesAToken(name) {
  const { layers, kv, hd } = SHAPES[name];
  return layers * 2 * kv * hd * 2;
}

function writeConfig(name, model) {
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
  mkdirSync(model, { recursive: true });
  writeFileSync(path.join(model, 'config.json'), JSON.stringify(config, null, 2));
}

/** A safetensors file of arbitrary small weights: the same 16 MiB over and over. */
function writeWeights(name, file) {
  const tensors = weightShapes(SHAPES[name]);
  const header = {};
  let end = 0;
  for (const [tensor, shape] of Object.entries(tensors)) {
    const begin = end;
    end += shape.reduce((product, size) => product * size, 2);
    header[tensor] = { dtype: 'BF16', shape, data_offsets: [begin, end] };
  }
  const text = JSON.stringify(header);
  const json = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const values = new Uint16Array(8 << 20);
  for (let i = 0; i < values.length; i++) values[i] = 0x3c00 + ((i * 40503) & 0x81ff); // about ±0.008 to ±0.03
  const bytes = Buffer.from(values.buffer);
  // Named at last, so that a run that breaks off leaves no half file.
  const part = openSync(`${file}.part`, 'w');
  writeSync(part, length);
  writeSync(part, json);
  for (let left = end; left > 0;) left -= writeSync(part, bytes, 0, Math.min(left, bytes.length));
  closeSync(part);
  renameSync(`${file}.part`, file);
}

function weightShapes({ layers, hidden, ffn, heads, kv, hd, vocab }) {
  const shapes = {
    'model.embed_tokens.weight': [vocab, hidden],
    'model.norm.weight': [hidden],
    'lm_head.weight': [vocab, hidden],
  };
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    Object.assign(shapes, {
      [`${prefix}input_layernorm.weight`]: [hidden],
      [`${prefix}post_attention_layernorm.weight`]: [hidden],
      [`${prefix}self_attn.q_proj.weight`]: [heads * hd, hidden],
      [`${prefix}self_attn.k_proj.weight`]: [kv * hd, hidden],
      [`${prefix}self_attn.v_proj.weight`]: [kv * hd, hidden],
      [`${prefix}self_attn.o_proj.weight`]: [hidden, heads * hd],
      [`${prefix}mlp.gate_proj.weight`]: [ffn, hidden],
      [`${prefix}mlp.up_proj.weight`]: [ffn, hidden],
      [`${prefix}mlp.down_proj.weight`]: [hidden, ffn],
    });
  }
  return shapes;
}
